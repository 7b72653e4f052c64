// Ranks of a world as threads of this program; what they are to have on several nodes is on the loopback address here.
#include "launch/launched_engines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "base/clock.h"
#include "net/connector.h"
#include "net/wire.h"
#include "worker/child_start.h"

namespace chorus {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int long_ms = 20'000;

std::shared_ptr<const ClusterKey> key_of(char letter) {
  return std::make_shared<ClusterKey>(std::string(40, letter));
}

class LaunchedEngines : public testing::Test {
 protected:
  LaunchedEngines() {
    std::ofstream(config_.cluster_key_file) << key_of('k')->bytes();
    std::filesystem::permissions(config_.cluster_key_file, std::filesystem::perms::owner_read);
    config_.parallel.data_parallel_size = 2;
    config_.parallel.tensor_parallel_size = 2;
    config_.engine_start_timeout_ms = long_ms;
  }
  ~LaunchedEngines() override { std::filesystem::remove(config_.cluster_key_file); }

  using Outcome = Result<EngineConnections>;
  using Rank = std::function<Outcome(Group*)>;
  Outcome connect(Group* world, char letter = 'k') {
    return connect_engines(config_, world, "127.0.0.1", key_of(letter), check_);
  }
  // Every rank does this, those in `others` something else.
  std::vector<Outcome> run(const std::map<int, Rank>& others = {}) {
    auto groups = make_thread_groups(config_.parallel.world_size(), long_ms);
    std::vector<std::future<Outcome>> ranks;
    for (std::size_t rank = 0; rank < groups.size(); ++rank) {
      const auto other = others.find(static_cast<int>(rank));
      const Rank& does = other != others.end() ? other->second : usual_;
      ranks.push_back(std::async(std::launch::async, [&group = groups[rank], &does] { return does(&group); }));
    }
    std::vector<Outcome> outcomes;
    for (auto& rank : ranks) outcomes.push_back(rank.get());
    return outcomes;
  }

  // Where rank 0 takes engines in, as it tells every rank.
  static std::pair<std::string, int> hear_of_entrance(Group* world) {
    std::string message;
    EXPECT_TRUE(world->broadcast_message(&message, 0, 1024).ok());
    WireReader reader(message);
    std::string host = reader.text();
    const auto port = static_cast<int>(reader.u32());
    return {std::move(host), port};
  }
  static Result<std::unique_ptr<Connection>> go_in(const std::pair<std::string, int>& entrance, char letter,
                                                   int dp_rank) {
    const Nanoseconds deadline = monotonic_now() + Nanoseconds{long_ms} * 1'000'000;
    CHORUS_TRY(auto connection, connect_to(entrance.first, entrance.second, key_of(letter), deadline));
    JoinMessage join;
    join.dp_rank = dp_rank;
    CHORUS_TRY_VOID(send_message(connection.get(), MessageType::join, 0, encode(join)));
    return connection;
  }
  // A rank that hears where the engines go, and then does this instead.
  static Rank instead(std::function<void(const std::pair<std::string, int>&)> action) {
    return [action = std::move(action)](Group* world) -> Outcome {
      action(hear_of_entrance(world));
      return EngineConnections{};
    };
  }

  EngineConfig config_ = [] {
    EngineConfig config;
    config.cluster_key_file = testing::TempDir() + "launched_engines." + std::to_string(::getpid());
    return config;
  }();
  std::function<Result<void>()> check_ = [] { return Result<void>(); };
  Rank usual_ = [this](Group* world) { return connect(world); };
};

TEST_F(LaunchedEngines, ComeToTheFleetEachInItsPlace) {
  config_.parallel.data_parallel_size = 4;
  config_.parallel.tensor_parallel_size = 1;
  const auto outcomes = run();
  for (const auto& outcome : outcomes) ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  ASSERT_EQ(outcomes[0]->engines.size(), 4U);
  for (std::size_t dp = 0; dp < 4; ++dp) {
    ASSERT_TRUE(outcomes[0]->engines[dp]->send(7, static_cast<std::uint32_t>(dp), "CONFIG").ok());
    const auto frame = receive_within(outcomes[dp]->fleet.get(), long_ms);
    ASSERT_TRUE(frame.ok()) << frame.error().message;
    EXPECT_EQ(frame->epoch, dp);
  }
}

TEST_F(LaunchedEngines, OtherWorkersOfAReplicaHaveNone) {
  const auto outcomes = run();
  for (const auto& outcome : outcomes) ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  EXPECT_NE(outcomes[2]->fleet, nullptr);
  for (const std::size_t worker : {1U, 3U}) {
    EXPECT_EQ(outcomes[worker]->fleet, nullptr);
    EXPECT_TRUE(outcomes[worker]->engines.empty());
  }
}

TEST_F(LaunchedEngines, OneThatDoesNotComeIsNamedByItsRank) {
  config_.engine_start_timeout_ms = 100;
  const auto outcomes = run({{2, instead([](const auto&) {})}});
  ASSERT_FALSE(outcomes[0].ok());
  EXPECT_EQ(outcomes[0].error().code, ErrorCode::deadline_exceeded);
  EXPECT_THAT(outcomes[0].error().message, HasSubstr("ranks 2 did not connect to rank 0 at 127.0.0.1 port"));
}

// Goal: nobody waits for a deadline that is far when the world is gone. Method: check() says so.
TEST_F(LaunchedEngines, ABrokenWorldEndsTheWaiting) {
  check_ = [] { return fail(ErrorCode::unavailable, "rank 3 died"); };
  const auto outcomes = run({{2, instead([](const auto&) {})}});
  ASSERT_FALSE(outcomes[0].ok());
  EXPECT_EQ(outcomes[0].error().message, "rank 3 died");
}

// Goal: a stranger cannot take an engine's place. Method: rank 2 tries with another key, then as it should.
TEST_F(LaunchedEngines, AStrangerTakesNoPlace) {
  std::unique_ptr<Connection> engine;
  const auto outcomes = run({{2, instead([&](const auto& entrance) {
                                const auto stranger = go_in(entrance, 'o', 1);
                                ASSERT_FALSE(stranger.ok());
                                EXPECT_EQ(stranger.error().code, ErrorCode::invalid_argument);
                                engine = go_in(entrance, 'k', 1).value();
                              })}});
  ASSERT_TRUE(outcomes[0].ok()) << outcomes[0].error().message;
  ASSERT_TRUE(outcomes[0]->engines[1]->send(7, 0, "for the engine").ok());
  EXPECT_TRUE(receive_within(engine.get(), long_ms).ok());
}

TEST_F(LaunchedEngines, PlacesThatAreTakenOrNotThereAreRefused) {
  config_.parallel.data_parallel_size = 3;
  config_.parallel.tensor_parallel_size = 1;
  std::unique_ptr<Connection> first;
  const auto act = [&](const auto& entrance) {
    first = go_in(entrance, 'k', 1).value();
    for (const int dp_rank : {0, 3, -1, 1}) {
      const auto refused = go_in(entrance, 'k', dp_rank);
      ASSERT_TRUE(refused.ok()) << refused.error().message;
      const auto answer = receive_within(refused->get(), long_ms);
      ASSERT_TRUE(answer.ok()) << answer.error().message;
      EXPECT_EQ(answer->type, static_cast<std::uint8_t>(MessageType::fatal));
    }
    EXPECT_TRUE(first->send(7, 0, "first").ok());
    EXPECT_TRUE(go_in(entrance, 'k', 2).ok());
  };
  const auto outcomes = run({{1, instead(act)}, {2, instead([](const auto&) {})}});
  ASSERT_TRUE(outcomes[0].ok()) << outcomes[0].error().message;
  const auto frame = receive_within(outcomes[0]->engines[1].get(), long_ms);
  ASSERT_TRUE(frame.ok()) << frame.error().message;
  EXPECT_EQ(frame->payload, "first");
}

TEST_F(LaunchedEngines, WithAnotherKeyAnEngineIsRefusedAtOnce) {
  config_.engine_start_timeout_ms = 1'000;
  const auto outcomes = run({{2, [this](Group* world) { return connect(world, 'o'); }}});
  ASSERT_FALSE(outcomes[2].ok());
  EXPECT_EQ(outcomes[2].error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(outcomes[2].error().message, AllOf(HasSubstr("rank 0's entrance"), HasSubstr("another cluster key")));
  EXPECT_FALSE(outcomes[0].ok());
}

TEST_F(LaunchedEngines, OnOneNodeTheyGetSocketsFromRankZero) {
  const auto store = make_memory_store();
  usual_ = [&](Group* world) -> Outcome {
    if (world->rank() % 2 != 0) return EngineConnections{};
    return hand_over_engine_sockets(config_, world->rank(), *store);
  };
  const auto outcomes = run();
  for (const auto& outcome : outcomes) ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  ASSERT_TRUE(outcomes[0]->engines[1]->send(7, 1, "CONFIG").ok());
  EXPECT_EQ(receive_within(outcomes[2]->fleet.get(), long_ms)->epoch, 1U);
}

}  // namespace
}  // namespace chorus
