// A fleet and the nodes that bring it replicas, over the loopback: the head in the test's thread, each node in
// its own thread, engines as real processes (this program again: main() below).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "launch/launch_fleet.h"
#include "launch/remote_node.h"
#include "net/frame_listener.h"
#include "testing/fleet_testing.h"
#include "worker/cluster_fingerprint.h"

namespace chorus::testing_fleet {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string key_file(const char* name, char letter) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path) << std::string(40, letter);
  EXPECT_EQ(::chmod(path.c_str(), 0600), 0);
  return path;
}

int free_port() {
  auto listener = FrameListener::listen({});
  return listener.ok() ? listener->address().port() : 0;
}

class RemoteFleet : public testing::Test {
 protected:
  // Four replicas, two of the head's machine.
  EngineConfig head_config() const {
    EngineConfig config = toy_engine_config(4);
    config.parallel.data_parallel_size_local = 2;
    config.parallel.data_parallel_rpc_port = port_;
    config.cluster_key_file = key_;
    return config;
  }
  EngineConfig node_config() const {
    EngineConfig config = head_config();
    config.headless = true;
    config.parallel.data_parallel_start_rank = 2;
    return config;
  }

  struct Node {
    std::atomic<bool> interrupted = false;
    Result<void> ended;
    std::jthread thread;  // last: it uses the others
    ~Node() { interrupted = true; }
  };
  std::unique_ptr<Node> start_node(const EngineConfig& config, const ModelConfig& model = toy_model_config()) {
    auto node = std::make_unique<Node>();
    node->thread = std::jthread([config, model, node = node.get()] {
      node->ended = run_remote_node(config, model, {make_toy_weights, [node] { return node->interrupted.load(); }});
    });
    return node;
  }
  Result<std::unique_ptr<HostedFleet>> start_head(const EngineConfig& config) {
    FleetSetup setup{make_toy_weights, supervisor_limits(config), {}, sources_of(config)};
    return start_fleet(config, toy_model_config(), std::move(setup));
  }
  // What becomes of a head that waits two seconds and of a node that does not belong to it, and what they log.
  struct Meeting {
    Result<std::unique_ptr<HostedFleet>> head;
    Result<void> node;
    std::string log;
  };
  Meeting meet(const EngineConfig& of_node) {
    EngineConfig of_head = head_config();
    of_head.engine_start_timeout_ms = 2'000;
    testing::internal::CaptureStderr();
    const auto node = start_node(of_node);
    auto head = start_head(of_head);
    node->thread.join();
    return {std::move(head), std::move(node->ended), testing::internal::GetCapturedStderr()};
  }
  // Until this rank answers again.
  static bool comes_back(Fleet* fleet, int rank, int old_pid) {
    const Nanoseconds deadline = monotonic_now() + test_timeout;
    std::vector<FleetEvent> events;
    while (monotonic_now() < deadline) {
      const ReplicaStatus status = fleet->replicas()[static_cast<std::size_t>(rank)];
      if (status.alive && status.pid != old_pid) return true;
      if (!fleet->poll(50, &events).ok()) return false;
    }
    return false;
  }

  std::string key_ = key_file("remote-key", 'k');
  int port_ = free_port();
};

TEST_F(RemoteFleet, GivesWhatOneEngineGivesAndEndsTheNodeInOrder) {
  const auto node = start_node(node_config());
  {
    auto fleet = start_head(head_config());
    ASSERT_TRUE(fleet.ok()) << fleet.error().message;
    const std::vector<Request> requests = mixed_requests(60);
    EXPECT_EQ(run_spread(fleet->get(), requests), direct_outputs(requests));
    for (const ReplicaStatus& status : (*fleet)->replicas()) EXPECT_TRUE(status.alive) << status.dp_rank;
  }
  node->thread.join();
  EXPECT_TRUE(node->ended.ok()) << node->ended.error().message;
}

TEST_F(RemoteFleet, AKilledEnginesRequestsGoToTheOthersAndItComesBack) {
  const auto node = start_node(node_config());
  auto fleet = start_head(head_config());
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  const int pid = (*fleet)->replicas()[2].pid;
  const std::vector<Request> requests = mixed_requests(60);
  testing::internal::CaptureStderr();
  const Outputs outputs = run_spread(fleet->get(), requests, [&](std::size_t events) {
    if (events == 20) ::kill(pid, SIGKILL);
  });
  EXPECT_EQ(outputs, direct_outputs(requests));
  EXPECT_TRUE(comes_back(fleet->get(), 2, pid));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("was killed by SIGKILL"), HasSubstr("Worker rank 2")));
}

TEST_F(RemoteFleet, ALostNodesRequestsGoToTheOthersAndAnotherTakesItsPlace) {
  auto node = start_node(node_config());
  auto fleet = start_head(head_config());
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  const int pid = (*fleet)->replicas()[3].pid;
  const std::vector<Request> requests = mixed_requests(60);
  const Outputs outputs = run_spread(fleet->get(), requests, [&](std::size_t events) {
    if (events == 20) node.reset();
  });
  EXPECT_EQ(outputs, direct_outputs(requests));
  node = start_node(node_config());
  EXPECT_TRUE(comes_back(fleet->get(), 3, pid));
}

TEST_F(RemoteFleet, ANodeOfAnotherConfigurationIsRefusedWithBothValues) {
  EngineConfig other = node_config();
  other.block_size = 32;
  const auto [fleet, node, log] = meet(other);
  ASSERT_FALSE(fleet.ok());
  EXPECT_EQ(fleet.error().code, ErrorCode::deadline_exceeded);
  EXPECT_THAT(fleet.error().message, HasSubstr("ranks 2, 3 did not come"));
  ASSERT_FALSE(node.ok());
  EXPECT_EQ(node.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(node.error().message, HasSubstr("block-size is 16 on the head and 32 on node"));
  EXPECT_THAT(log, HasSubstr("is refused: it would give other tokens than the head: block-size is 16"));
}

TEST_F(RemoteFleet, ANodeWithAnotherKeyIsRefused) {
  EngineConfig other = node_config();
  other.cluster_key_file = key_file("other-key", 'o');
  const auto [fleet, node, log] = meet(other);
  EXPECT_THAT(log, HasSubstr("Refused a connection"));
  EXPECT_FALSE(fleet.ok());
  ASSERT_FALSE(node.ok());
  EXPECT_THAT(node.error().message, HasSubstr("another cluster key"));
}

TEST_F(RemoteFleet, ASecondNodeWithTheSameRanksWaitsUntilTheyAreFree) {
  const auto first = start_node(node_config());
  auto fleet = start_head(head_config());
  ASSERT_TRUE(fleet.ok()) << fleet.error().message;
  const int pid = (*fleet)->replicas()[2].pid;
  testing::internal::CaptureStderr();
  const auto second = start_node(node_config());
  const std::vector<Request> requests = mixed_requests(30);
  EXPECT_EQ(run_spread(fleet->get(), requests), direct_outputs(requests));
  EXPECT_EQ((*fleet)->replicas()[2].pid, pid);
  first->interrupted = true;
  EXPECT_TRUE(comes_back(fleet->get(), 2, pid));
  testing::internal::GetCapturedStderr();
}

TEST_F(RemoteFleet, ANodeWithoutAHeadGivesUpAtItsDeadline) {
  EngineConfig config = node_config();
  config.engine_start_timeout_ms = 300;
  const auto node = start_node(config);
  node->thread.join();
  ASSERT_FALSE(node->ended.ok());
  EXPECT_THAT(node->ended.error().message, HasSubstr("no connection to the head within 300 ms"));
}

TEST(ClusterFingerprint, TellsWeightsAndSizesApart) {
  auto weights = make_toy_weights({}, {}, {}, 1, {});
  ASSERT_TRUE(weights.ok());
  auto other = make_toy_weights({}, {}, {}, 1, {});
  ASSERT_TRUE(other.ok());
  const EngineConfig config = toy_engine_config(2);
  const ModelConfig model = toy_model_config();
  const Fingerprint head = cluster_fingerprint(config, model, *weights);
  EXPECT_EQ(differences(head, cluster_fingerprint(config, model, *other), "b"), "");

  ModelConfig elsewhere = model;
  elsewhere.directory = "/another/place";
  EXPECT_EQ(differences(head, cluster_fingerprint(config, elsewhere, *weights), "b"), "");
  elsewhere.norm_eps = 1;
  EXPECT_THAT(differences(head, cluster_fingerprint(config, elsewhere, *weights), "b"), HasSubstr("model config is"));

  other->digest = "another";
  EXPECT_THAT(differences(head, cluster_fingerprint(config, model, *other), "b"), HasSubstr("weights is"));
  EXPECT_EQ(differences({{"a", "1"}}, {}, "b"), "a is 1 on the head and not known on node b");
}

}  // namespace
}  // namespace chorus::testing_fleet

int main(int argc, char** argv) {
  if (chorus::is_engine_process(argc, argv)) {
    return chorus::engine_process_main(chorus::engine_socket_fd, chorus::testing_fleet::start_toy);
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
