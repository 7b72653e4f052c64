// Real processes, real sockets: this test program is its own engine executable (main() at the end).
#include "fleet/fleet.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include "base/clock.h"
#include "net/connection.h"
#include "testing/fleet_running.h"
#include "testing/fleet_testing.h"
#include "worker/child_process.h"

namespace chorus::testing_fleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class FleetSizes : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Replicas, FleetSizes, testing::Values(1, 2, 4));

TEST_P(FleetSizes, GivesWhatOneEngineGives) {
  const std::vector<Request> requests = mixed_requests(60);
  {
    auto fleet = start_toy_fleet(toy_engine_config(GetParam()));
    ASSERT_TRUE(fleet.ok()) << fleet.error().message;
    EXPECT_EQ((*fleet)->times().profile, "scalar/bfloat16");
    EXPECT_EQ(run_all(fleet->get(), requests), direct_outputs(requests));
    for (const ReplicaStatus& replica : (*fleet)->replicas()) EXPECT_EQ(replica.in_flight, 0U);
  }
  expect_no_children();
}

TEST(Fleet, LogsItsStartInTheAgreedWords) {
  const std::string lines = log_of([] { ASSERT_TRUE(start_toy_fleet(toy_engine_config(2)).ok()); });
  EXPECT_THAT(lines, AllOf(HasSubstr("INFO Starting 2 data parallel workers\n"),
                           HasSubstr("INFO Worker rank 0 is ready\n"), HasSubstr("INFO Worker rank 1 is ready\n")));
}

TEST(Fleet, AnEngineHasItsNameAndNoDescriptorsOfOthers) {
  auto fleet = start_toy_fleet(toy_engine_config(3));
  ASSERT_TRUE(fleet.ok());
  for (const ReplicaStatus& replica : (*fleet)->replicas()) {
    const std::string directory = "/proc/" + std::to_string(replica.pid);
    std::ifstream command(directory + "/cmdline");
    std::string name;
    std::getline(command, name, '\0');
    EXPECT_EQ(name, "chorus engine dp=" + std::to_string(replica.dp_rank));
    std::set<std::string> sockets;  // by inode
    for (const auto& entry : std::filesystem::directory_iterator(directory + "/fd")) {
      const int descriptor = std::atoi(entry.path().filename().c_str());
      const std::string target = std::filesystem::read_symlink(entry.path()).string();
      if (descriptor == 0) {
        EXPECT_EQ(target, "/dev/null");
      } else if (descriptor > 2 && target.starts_with("socket:")) {
        sockets.insert(target);
      } else if (descriptor > 2) {
        EXPECT_THAT(target, HasSubstr("memfd")) << "descriptor " << descriptor;
      }
    }
    EXPECT_EQ(sockets.size(), 1U);
  }
}

TEST(Fleet, ARequestGoesToTheRankItNames) {
  auto fleet = start_toy_fleet(toy_engine_config(3));
  ASSERT_TRUE(fleet.ok());
  std::vector<Request> requests = mixed_requests(9);
  std::map<RequestId, int> wanted;
  for (const Request& request : requests) {
    wanted[request.id] = static_cast<int>(request.id.number % 3);
    ASSERT_TRUE((*fleet)->submit(request, wanted[request.id]).ok());
  }
  std::uint32_t finished = 0;
  std::vector<FleetEvent> events;
  while (finished < choices_of(requests)) {
    events.clear();
    ASSERT_TRUE((*fleet)->poll(1000, &events).ok());
    for (const FleetEvent& event : events) {
      EXPECT_EQ(event.dp_rank, wanted[event.event.request]);
      if (event.event.finish != FinishReason::none) ++finished;
    }
  }
}

TEST(Fleet, RefusesWhatCannotBeSubmitted) {
  auto fleet = start_toy_fleet(toy_engine_config(1));
  ASSERT_TRUE(fleet.ok());
  Request request = mixed_requests(1)[0];
  EXPECT_THAT((*fleet)->submit(request, 1).error().message, HasSubstr("rank 1"));
  request.params.max_tokens = 0;
  EXPECT_EQ((*fleet)->submit(request, 0).error().code, ErrorCode::invalid_argument);
}

TEST(Fleet, WhatIsAbortedSaysNothingMoreAndTheRestIsAsBefore) {
  auto fleet = start_toy_fleet(toy_engine_config(2, "slow"));
  ASSERT_TRUE(fleet.ok());
  const std::vector<Request> requests = mixed_requests(150);  // more than the windows hold: some wait on this side
  Outputs expected = direct_outputs(requests);
  std::uint32_t left = choices_of(requests);
  for (const Request& request : requests) ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  std::map<RequestId, bool> aborted;
  for (const Request& request : requests) {
    if (request.id.number % 3 != 0) continue;
    (*fleet)->abort(request.id);
    aborted[request.id] = true;
    left -= request.params.n;
  }
  for (const Request& request : requests) {
    if (aborted[request.id] || request.params.n < 2) continue;
    (*fleet)->abort_choice(request.id, 1);
    expected.erase({request.id, 1});
    --left;
  }
  std::erase_if(expected, [&](const auto& output) { return aborted[output.first.first]; });
  Collector collector;
  run(fleet->get(), left, &collector);
  EXPECT_EQ(collector.outputs(), expected);
}

TEST(Fleet, AReplicaKilledInTheMiddleChangesNoToken) {
  const std::vector<Request> requests = mixed_requests(80);
  const Outputs expected = direct_outputs(requests);
  auto fleet = start_toy_fleet(toy_engine_config(2, "slow"));
  ASSERT_TRUE(fleet.ok());
  int killed = 0;
  Outputs outputs;
  const std::string lines = log_of([&] {
    outputs = run_all(fleet->get(), requests, [&](HostedFleet& running, const Collector& collector) {
      if (killed == 0 && collector.events() > 100) ::kill(killed = running.replicas()[1].pid, SIGKILL);
    });
  });
  EXPECT_NE(killed, 0);
  EXPECT_EQ(outputs, expected);
  EXPECT_THAT(lines, HasSubstr(fmt::format("Worker rank 1 (pid {}) was killed by SIGKILL", killed)));
  EXPECT_THAT(lines, HasSubstr("requests go to the others"));
}

// Goal: the end of a process is what tells of a death (its pidfd, its socket), not the deadline of its heartbeat: the
// log names the cause that was found.
TEST(Fleet, ADeathIsNoticedByItsCause) {
  EngineConfig config = toy_engine_config(2);
  config.engine_heartbeat_timeout_ms = 5'000;
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  for (int round = 0; round < 3; ++round) {
    std::vector<FleetEvent> events;
    while (!(*fleet)->replicas()[0].alive) ASSERT_TRUE((*fleet)->poll(10, &events).ok());
    const int pid = (*fleet)->replicas()[0].pid;
    const std::string lines = log_of([&] {
      ::kill(pid, SIGKILL);
      while ((*fleet)->replicas()[0].alive) ASSERT_TRUE((*fleet)->poll(1, &events).ok());
    });
    EXPECT_THAT(lines, AllOf(HasSubstr(fmt::format("Worker rank 0 (pid {}) was killed by SIGKILL", pid)),
                             Not(HasSubstr("no sign of life"))));
  }
}

// Three times: a request without a token at the first two runs alone at the third, and is no culprit for that.
TEST(Fleet, KillingEveryReplicaAgainAndAgainChangesNoToken) {
  const std::vector<Request> requests = mixed_requests(60);
  const Outputs expected = direct_outputs(requests);
  auto fleet = start_toy_fleet(toy_engine_config(2, "slow"));
  ASSERT_TRUE(fleet.ok());
  std::size_t next_kill = 50;
  int rounds = 0;
  const Outputs outputs = run_all(fleet->get(), requests, [&](HostedFleet& running, const Collector& collector) {
    if (rounds == 3 || collector.events() < next_kill) return;
    for (const ReplicaStatus& replica : running.replicas()) {
      if (replica.alive) ::kill(replica.pid, SIGKILL);
    }
    next_kill = collector.events() + 50;
    ++rounds;
  });
  EXPECT_EQ(rounds, 3);
  EXPECT_EQ(outputs, expected);
}

// It never wakes: a replica that is declared dead is killed.
TEST(Fleet, AStoppedReplicaIsKilledAndReplaced) {
  const std::vector<Request> requests = mixed_requests(60);
  const Outputs expected = direct_outputs(requests);
  EngineConfig config = toy_engine_config(2, "slow");
  config.engine_heartbeat_timeout_ms = 500;
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  int stopped = 0;
  Outputs outputs;
  const std::string lines = log_of([&] {
    outputs = run_all(fleet->get(), requests, [&](HostedFleet& running, const Collector& collector) {
      if (stopped == 0 && collector.events() > 50) ::kill(stopped = running.replicas()[0].pid, SIGSTOP);
    });
  });
  EXPECT_NE(stopped, 0);
  EXPECT_EQ(outputs, expected);
  EXPECT_THAT(lines, HasSubstr(fmt::format("Worker rank 0 (pid {}) gave no sign of life for 500 ms", stopped)));
  EXPECT_EQ(::kill(stopped, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

// A step of 60 rows, 1.2 s without a finished layer, after steps of 20 ms; and a second without work before it.
TEST(Fleet, ALongStepAfterShortOnesAndAnIdleSecondAreNoHang) {
  auto fleet = start_toy_fleet(toy_engine_config(1, "heavy"));
  ASSERT_TRUE(fleet.ok());
  const int pid = (*fleet)->replicas()[0].pid;
  Request request = mixed_requests(1)[0];
  request.params = {};
  request.params.ignore_eos = true;
  request.params.max_tokens = 10;
  request.prompt = {5};
  run_all(fleet->get(), {request});
  std::vector<FleetEvent> events;
  const Nanoseconds idle_until = monotonic_now() + 1'200'000'000;
  while (monotonic_now() < idle_until) ASSERT_TRUE((*fleet)->poll(100, &events).ok());
  request.prompt.assign(60, 5);
  run_all(fleet->get(), {request});
  EXPECT_EQ((*fleet)->replicas()[0].pid, pid);
}

TEST(Fleet, AReplicaThatFinishesNoStepIsEndedAndItsRequestsGoOn) {
  const std::vector<Request> requests = mixed_requests(60);
  const Outputs expected = direct_outputs(requests);
  auto fleet = start_toy_fleet(toy_engine_config(2, "slow"));
  ASSERT_TRUE(fleet.ok());
  int stopped = 0;
  Outputs outputs;
  const std::string lines = log_of([&] {
    outputs = run_all(fleet->get(), requests, [&](HostedFleet& running, const Collector& collector) {
      if (stopped == 0 && collector.events() > 50) ::kill(stopped = running.replicas()[0].pid, SIGSTOP);
    });
  });
  EXPECT_EQ(outputs, expected);
  EXPECT_THAT(lines, HasSubstr(fmt::format("Worker rank 0 (pid {}) was ended (hung: no layer finished for ", stopped)));
}

TEST(Fleet, AnIdleReplicaLivesOnPastTheHeartbeatDeadline) {
  EngineConfig config = toy_engine_config(1);
  config.engine_heartbeat_timeout_ms = 400;
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  const int pid = (*fleet)->replicas()[0].pid;
  const Nanoseconds end = monotonic_now() + 1'200'000'000;
  std::vector<FleetEvent> events;
  while (monotonic_now() < end) ASSERT_TRUE((*fleet)->poll(100, &events).ok());
  EXPECT_EQ((*fleet)->replicas()[0].pid, pid);
  EXPECT_TRUE((*fleet)->replicas()[0].alive);
}

TEST(Fleet, AReplicaThatBreaksTheProtocolIsEndedAndOthersGoOn) {
  const std::vector<Request> requests = mixed_requests(40);
  const Outputs expected = direct_outputs(requests);
  ::setenv(manner_variable, "garbage", 1);
  Outputs outputs;
  const std::string lines = log_of([&] {
    auto fleet = start_toy_fleet(toy_engine_config(2));
    ASSERT_TRUE(fleet.ok());
    outputs = run_all(fleet->get(), requests);
  });
  ::unsetenv(manner_variable);
  EXPECT_EQ(outputs, expected);
  EXPECT_THAT(lines, AllOf(HasSubstr("Worker rank 0 (pid "), HasSubstr("was ended (EVENTS: malformed message")));
}

// Its words are in the error of the request that met it so often, then in the fleet's when it is given up.
TEST(Fleet, AReplicaThatFailsItsStepsIsTriedAFewTimesAndThenItsWordsAreTheError) {
  auto fleet = start_toy_fleet(toy_engine_config(1, "fail"));
  ASSERT_TRUE(fleet.ok());
  Request request = mixed_requests(1)[0];
  request.params.n = 1;
  ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  std::vector<FleetEvent> events;
  Result<void> polled;
  const Nanoseconds deadline = monotonic_now() + test_timeout;
  while (events.empty() && (polled = (*fleet)->poll(1000, &events)).ok()) ASSERT_LT(monotonic_now(), deadline);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].event.finish, FinishReason::error);
  EXPECT_THAT(events[0].event.error, AllOf(HasSubstr("was in flight when 4 replicas died"),
                                           HasSubstr("worker rank 0 failed: the toy breaks on purpose")));
  ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  while ((polled = (*fleet)->poll(1000, &events)).ok()) ASSERT_LT(monotonic_now(), deadline);
  EXPECT_EQ(events.size(), 1U) << "the budget was spent before the second one had its four deaths";
  EXPECT_THAT(polled.error().message, AllOf(HasSubstr("no replica could be kept alive"),
                                            HasSubstr("worker rank 0 failed: the toy breaks on purpose")));
}

TEST(Fleet, TheRestartBudgetIsAnOption) {
  EngineConfig config = toy_engine_config(1, "fail");
  config.engine_restarts_max = 2;
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  Request request = mixed_requests(1)[0];
  request.params.n = 1;
  ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  std::vector<FleetEvent> events;
  Result<void> polled;
  const Nanoseconds deadline = monotonic_now() + test_timeout;
  const std::string lines = log_of([&] {
    while ((polled = (*fleet)->poll(1000, &events)).ok()) ASSERT_LT(monotonic_now(), deadline);
  });
  EXPECT_THAT(lines, HasSubstr("Worker rank 0 is given up after 2 restarts"));
}

TEST(Fleet, ARequestThatKillsItsReplicasIsEndedAndTheRestIsAsBefore) {
  std::vector<Request> requests = mixed_requests(20);
  for (Request& request : requests) request.prompt[0] = 1;
  const Outputs expected = direct_outputs(requests);
  auto fleet = start_toy_fleet(toy_engine_config(2, "poison"));
  ASSERT_TRUE(fleet.ok());
  const Outputs before = run_all(fleet->get(), requests);
  EXPECT_EQ(before, expected);
  Request poison = requests[0];
  poison.prompt[0] = poison_token;
  poison.params.n = 1;
  const Outputs ended = run_all(fleet->get(), {poison});
  EXPECT_EQ(ended.at({poison.id, 0}).finish, FinishReason::error);
  EXPECT_EQ(run_all(fleet->get(), requests), expected);
}

// What a choice has emitted can outgrow a message: no engine can take it, and nobody may wait for it for ever.
TEST(Fleet, ARequestThatCannotBeSentIsEnded) {
  auto fleet = start_toy_fleet(toy_engine_config(1));
  ASSERT_TRUE(fleet.ok());
  Request request = mixed_requests(1)[0];
  request.params.n = 1;
  request.params.max_tokens = 20'000'000;
  request.choices = {{0, std::vector<TokenId>(frame_payload_bytes_max / sizeof(TokenId) + 1, 5)}};
  ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  std::vector<FleetEvent> events;
  const Nanoseconds deadline = monotonic_now() + test_timeout;
  while (events.empty()) {
    ASSERT_TRUE((*fleet)->poll(1000, &events).ok());
    ASSERT_LT(monotonic_now(), deadline);
  }
  EXPECT_EQ(events[0].event.finish, FinishReason::error);
  EXPECT_THAT(events[0].event.error, HasSubstr("over the limit of 67108864"));
}

// More than the ledger's own default, all of which the windows hold.
TEST(Fleet, TakesAsManyRequestsAsItsEnginesDo) {
  EngineConfig config = toy_engine_config(1);
  config.max_num_seqs = 65536;
  config.max_num_batched_tokens = 8192;
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  Request request;
  request.prompt = {1};
  request.params.max_tokens = 1;
  for (int i = 0; i < 70'000; ++i) ASSERT_TRUE((*fleet)->submit(request, std::nullopt).ok());
  Collector collector;
  run(fleet->get(), 70'000, &collector);
  EXPECT_EQ(collector.finished(), 70'000U);
}

// Not a test of right or wrong: prints what a start and a token cost beside a direct engine.
TEST(Fleet, MeasuresStartAndTokenOverhead) {
  std::vector<Request> requests = mixed_requests(200);
  for (Request& request : requests) {
    request.params = {};
    request.params.max_tokens = 100;
    request.params.ignore_eos = true;
  }
  Nanoseconds begin = monotonic_now();
  const Outputs expected = direct_outputs(requests);
  const double direct_s = static_cast<double>(monotonic_now() - begin) * 1e-9;
  for (const int replicas : {1, 2}) {
    auto fleet = start_toy_fleet(toy_engine_config(replicas));
    ASSERT_TRUE(fleet.ok());
    begin = monotonic_now();
    EXPECT_EQ(run_all(fleet->get(), requests), expected);
    const double fleet_s = static_cast<double>(monotonic_now() - begin) * 1e-9;
    fmt::print("dp={}: ready after {:.1f} ms; 20000 tokens in {:.1f} ms (direct {:.1f} ms), {:.2f} us a token more\n",
               replicas, (*fleet)->times().ready_s * 1e3, fleet_s * 1e3, direct_s * 1e3,
               (fleet_s - direct_s) * 1e6 / 20000);
  }
}

// Rank 0 with the manner "garbage": first speaks with another epoch's voice, which nobody must hear, then nonsense.
int garbage_engine() {
  auto connection = make_socket_connection(UniqueFd(engine_socket_fd));
  const auto send = [&](MessageType type, std::uint32_t epoch, std::string payload) {
    return (*connection)->send(static_cast<std::uint8_t>(type), epoch, std::move(payload)).ok();
  };
  if (!connection.ok() || !send(MessageType::hello, 0, encode(HelloMessage{}))) return 1;
  auto frame = receive_within(connection->get(), 10'000);
  if (!frame.ok()) return 1;
  const std::uint32_t epoch = frame->epoch;
  send(MessageType::ready, epoch, encode(ReadyMessage{1, "scalar/bfloat16"}));
  do {
    frame = receive_within(connection->get(), 60'000);
    if (!frame.ok()) return 0;
  } while (frame->type != static_cast<std::uint8_t>(MessageType::add));
  auto request = decode_request(frame->payload);
  if (!request.ok()) return 1;
  TokenEvent event;
  event.request = request->id;
  event.token = 999;
  event.finish = FinishReason::length;
  send(MessageType::events, epoch + 7, encode_events({&event, 1}, 1 << 20).front());
  send(MessageType::events, epoch, "\xFF\xFF\xFF\x7Fnonsense");
  static_cast<void>(receive_within(connection->get(), 60'000).ok());
  return 0;
}

// HELLO and READY, then SIGKILL.
int ready_and_killed_engine() {
  auto connection = make_socket_connection(UniqueFd(engine_socket_fd));
  const auto send = [&](MessageType type, std::uint32_t epoch, std::string payload) {
    return (*connection)->send(static_cast<std::uint8_t>(type), epoch, std::move(payload)).ok();
  };
  if (!connection.ok() || !send(MessageType::hello, 0, encode(HelloMessage{}))) return 1;
  auto frame = receive_within(connection->get(), 10'000);
  if (!frame.ok() || !send(MessageType::ready, frame->epoch, encode(ReadyMessage{1, "scalar/bfloat16"}))) return 1;
  ::raise(SIGKILL);
  return 1;
}

// The first rank 0 is killed when READY; the second one meets rank 1 at the gate, then both go on as usual.
int overlapping_engine(bool rank_0, const std::string& directory) {
  if (rank_0 && ::mkdir((directory + "/first").c_str(), 0700) == 0) return ready_and_killed_engine();
  ::close(::open((directory + "/gate").c_str(), rank_0 ? O_WRONLY : O_RDONLY));
  return engine_process_main(engine_socket_fd, start_toy);
}

}  // namespace

int engine_of_a_world(bool rank_0, const std::string& directory);  // fleet_world_test.cc

int engine_main(const char* name) {
  const char* variable = std::getenv(manner_variable);
  const std::string manner = variable == nullptr ? "" : variable;
  const bool rank_0 = std::string(name) == "chorus engine dp=0";
  if (manner == "exit") return 9;
  if (manner == "garbage" && rank_0) return garbage_engine();
  if (manner.starts_with("once:")) return engine_of_a_world(rank_0, manner.substr(manner.find(':') + 1));
  if (manner.starts_with("overlap:")) return overlapping_engine(rank_0, manner.substr(manner.find(':') + 1));
  return engine_process_main(engine_socket_fd, start_toy);
}

}  // namespace chorus::testing_fleet

int main(int argc, char** argv) {
  if (chorus::is_engine_process(argc, argv)) return chorus::testing_fleet::engine_main(argv[0]);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
