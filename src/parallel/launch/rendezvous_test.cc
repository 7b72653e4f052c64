#include "parallel/launch/rendezvous.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "net/tcp.h"
#include "parallel/transport/tcp_socket.h"
#include "testing/group_testing.h"

namespace chorus {
namespace {

constexpr int long_ms = 20'000;

JoinOptions options_of(int timeout_ms = long_ms) {
  JoinOptions options;
  options.timeout_ms = timeout_ms;
  options.exchange_timeout_ms = long_ms;
  options.fingerprint = {{"model", "m"}, {"dtype", "bfloat16"}};
  return options;
}

using Joined = std::vector<Result<std::shared_ptr<Transport>>>;

// Joins as `size` threads that meet in memory; `adjust` changes a rank's options.
Joined join_threads(int size, const std::function<void(int, JoinOptions*)>& adjust) {
  const auto store = make_memory_store();
  Joined joined(static_cast<std::size_t>(size), std::shared_ptr<Transport>());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      JoinOptions options = options_of();
      adjust(rank, &options);
      joined[static_cast<std::size_t>(rank)] = join_world(store, rank, size, options);
    });
  }
  for (auto& thread : threads) thread.join();
  return joined;
}

// Of nobody's now; another program may take it before it is used, which a test then says.
int free_port() {
  const UniqueFd listener = std::move(listen_tcp("127.0.0.1", 0, 1)).value();
  return tcp::local_address(listener.get())->port();
}

// 2^24 + 1 is not a float, so the sum of all ranks depends on its order.
void expect_sums(const Joined& joined) {
  std::vector<std::thread> threads;
  for (const auto& transport : joined) {
    ASSERT_TRUE(transport.ok()) << transport.error().message;
    threads.emplace_back([&] {
      Group group = group_of_all(*transport);
      std::vector<float> data{(*transport)->rank() == 0 ? 16'777'216.0F : 1.0F};
      const auto summed = group.all_reduce_tree(data);
      ASSERT_TRUE(summed.ok()) << summed.error().message;
      EXPECT_EQ(data[0], 16'777'218.0F);  // (2^24 + 1) + (1 + 1)
      EXPECT_TRUE(group.barrier().ok());
    });
  }
  for (auto& thread : threads) thread.join();
}

// How many worlds' memories this process has mapped.
std::size_t shared_memories() {
  std::set<std::string> inodes;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::string range, rights, offset, device, inode;
    std::istringstream(line) >> range >> rights >> offset >> device >> inode;
    if (line.find("memfd:chorus-world") != std::string::npos) inodes.insert(inode);
  }
  return inodes.size();
}

TEST(Rendezvous, RanksOfOneNodeShareMemory) {
  const auto joined = join_threads(4, [](int, JoinOptions*) {});
  EXPECT_EQ(shared_memories(), 1U);
  expect_sums(joined);
}

// Goal: memory inside a node, TCP between nodes, and one end for all. Method: threads pretend nodes (one per digit);
// the last one leaves.
TEST(Rendezvous, RanksOfSeveralNodesShareMemoryInsideANode) {
  struct Case {
    std::string nodes;
    std::size_t memories;
  };
  for (const auto& [nodes, memories] : {Case{"0123", 0}, {"0011", 2}, {"0101", 2}, {"0001", 1}, {"1220", 1}}) {
    auto joined = join_threads(4, [&nodes = nodes](int rank, JoinOptions* options) {
      options->node_identity = std::string("node ") + nodes[static_cast<std::size_t>(rank)];
      options->key = test_key();
    });
    EXPECT_EQ(shared_memories(), memories) << nodes;
    expect_sums(joined);
    joined[3] = std::shared_ptr<Transport>();
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < 3; ++rank) {
      threads.emplace_back([&, rank] {
        const auto result = group_of_all(*joined[rank]).barrier();
        ASSERT_FALSE(result.ok());
        EXPECT_EQ(result.error().code, ErrorCode::unavailable);
        EXPECT_NE(result.error().message.find("rank 3"), std::string::npos) << nodes << ": " << result.error().message;
      });
    }
    for (auto& thread : threads) thread.join();
  }
}

// A store that loses what is set under a key.
class LosingStore final : public Store {
 public:
  LosingStore(std::shared_ptr<Store> inner, std::string key) : inner_(std::move(inner)), key_(std::move(key)) {}
  Result<void> set(const std::string& key, std::string_view value, int timeout_ms) override {
    if (key.ends_with(key_)) return fail(ErrorCode::unavailable, "the store lost {}", key);
    return inner_->set(key, value, timeout_ms);
  }
  Result<std::string> get(const std::string& key, int timeout_ms) override { return inner_->get(key, timeout_ms); }
  Result<std::int64_t> add(const std::string& key, std::int64_t delta, int timeout_ms) override {
    return inner_->add(key, delta, timeout_ms);
  }
  Result<std::string> compare_set(const std::string& key, std::string_view expected, std::string_view desired,
                                  int timeout_ms) override {
    return inner_->compare_set(key, expected, desired, timeout_ms);
  }
  Result<bool> delete_key(const std::string& key, int timeout_ms) override {
    return inner_->delete_key(key, timeout_ms);
  }
  Result<bool> check(std::span<const std::string> keys, int timeout_ms) override {
    return inner_->check(keys, timeout_ms);
  }
  Result<void> wait(std::span<const std::string> keys, int timeout_ms) override {
    return inner_->wait(keys, timeout_ms);
  }

 private:
  std::shared_ptr<Store> inner_;
  std::string key_;
};

// Goal: what fails inside one node is heard by the ranks of the others. Method: the ranks of node 1 do not get their
// memory; rank 3, which waits for it, has two seconds, the others a day.
TEST(Rendezvous, AFailureInsideANodeReachesTheOthers) {
  const auto store = make_memory_store();
  Joined joined(4, std::shared_ptr<Transport>());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&, rank] {
      JoinOptions options = options_of(rank == 3 ? 2'000 : 86'400'000);
      options.node_identity = fmt::format("node {}", rank / 2);
      const auto own = rank == 2 ? std::make_shared<LosingStore>(store, "handover") : store;
      joined[static_cast<std::size_t>(rank)] = join_world(own, rank, 4, options);
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& result : joined) ASSERT_FALSE(result.ok());
  for (const std::size_t rank : {0U, 1U, 2U}) {
    EXPECT_NE(joined[rank].error().message.find("the store lost"), std::string::npos) << joined[rank].error().message;
  }
}

// Goal: no rank waits for the others when one may not listen. Method: rank 1 alone has an address that other machines
// reach (of documents, RFC 5737); joining has 20 s.
TEST(Rendezvous, RanksOfDifferentNodesWithoutAKeyAreRefused) {
  const auto joined = join_threads(3, [](int rank, JoinOptions* options) {
    options->node_identity = fmt::format("node {}", rank);
    if (rank == 1) options->address = "192.0.2.1";
  });
  for (const auto& result : joined) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(result.error().message.find("rank 1: 192.0.2.1 can be reached from other machines and there is no"),
              std::string::npos)
        << result.error().message;
  }
}

TEST(Rendezvous, AWorldOfOneHasNoTransport) {
  const auto joined = join_threads(1, [](int, JoinOptions*) {});
  ASSERT_TRUE(joined[0].ok());
  EXPECT_EQ(*joined[0], nullptr);
}

TEST(Rendezvous, WorldsOfOneStoreAreSeparate) {
  const auto store = make_memory_store();
  for (const char* world : {"replica 0", "replica 1"}) {
    JoinOptions options = options_of();
    options.world = world;
    EXPECT_TRUE(join_world(store, 0, 1, options).ok());
  }
}

TEST(Rendezvous, DifferentSettingsAreRefusedInAllRanks) {
  const auto joined = join_threads(3, [](int rank, JoinOptions* options) {
    if (rank == 2) options->fingerprint = {{"model", "m"}, {"dtype", "float32"}, {"seed", "1"}};
  });
  for (const auto& result : joined) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(
        result.error().message,
        "ranks 0 and 2 were started with different settings: dtype: bfloat16 against float32; seed: nothing against 1");
  }
}

TEST(Rendezvous, MissingRanksAreNamedAtTheDeadline) {
  const auto joined = join_world(make_memory_store(), 1, 4, options_of(50));
  ASSERT_FALSE(joined.ok());
  EXPECT_EQ(joined.error().code, ErrorCode::deadline_exceeded);
  EXPECT_EQ(joined.error().message, "ranks 0, 2, 3 of 4 did not join world within 50 ms");
}

TEST(Rendezvous, ARankJoinsOnce) {
  const auto store = make_memory_store();
  ASSERT_TRUE(join_world(store, 0, 1, options_of()).ok());
  const auto again = join_world(store, 0, 1, options_of());
  ASSERT_FALSE(again.ok());
  EXPECT_NE(again.error().message.find("two processes have this rank"), std::string::npos);
}

TEST(Rendezvous, RanksThatMayBeOnSeveralNodesNeedAKey) {
  LauncherEnvironment environment;
  environment.world_size = 2;
  environment.store_host = "node0.invalid";
  environment.store_port = 1;
  for (const int rank : {0, 1}) {
    environment.rank = rank;
    const auto place = open_meeting_place(environment, nullptr, long_ms);
    ASSERT_FALSE(place.ok());
    EXPECT_EQ(place.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(place.error().message.find("node0.invalid (MASTER_ADDR"), std::string::npos) << place.error().message;
    EXPECT_NE(place.error().message.find("openssl rand"), std::string::npos) << place.error().message;
  }
}

// Goal: a host's name may lead out of the machine; ranks that are all on it meet inside. Method: a name that leads
// nowhere.
TEST(Rendezvous, RanksOfOneNodeMeetAtTheLoopbackAddress) {
  LauncherEnvironment environment;
  environment.world_size = environment.local_world_size = 2;
  environment.store_host = "node0.invalid";
  environment.store_port = free_port();
  const auto first = open_meeting_place(environment, nullptr, long_ms);
  ASSERT_TRUE(first.ok()) << first.error().message;
  environment.rank = 1;
  const auto second = open_meeting_place(environment, nullptr, long_ms);
  ASSERT_TRUE(second.ok()) << second.error().message;
  ASSERT_TRUE(first->store->set("key", "value", long_ms).ok());
  EXPECT_EQ(*second->store->get("key", long_ms), "value");
  EXPECT_EQ(second->store->local_address(), "127.0.0.1");
}

// Goal: every rank learns why they do not come together, though rank 0 knows first and its store ends with it. Method:
// often, since it takes a rank that is late.
TEST(Rendezvous, TheStoreOutlivesARefusal) {
  constexpr int size = 4;
  for (int round = 0; round < 20; ++round) {
    LauncherEnvironment environment;
    environment.world_size = environment.local_world_size = size;
    environment.store_host = "localhost";
    environment.store_port = free_port();
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < size; ++rank) {
      ranks.emplace_back([environment, rank]() mutable {
        environment.rank = rank;
        const auto place = open_meeting_place(environment, nullptr, long_ms);
        ASSERT_TRUE(place.ok()) << place.error().message;
        JoinOptions options = options_of();
        if (rank == 2) options.fingerprint[0].second = "another";
        const auto joined = join_world(place->store, rank, size, options);
        ASSERT_FALSE(joined.ok());
        EXPECT_EQ(joined.error().code, ErrorCode::invalid_argument) << rank << ": " << joined.error().message;
      });
    }
    for (auto& rank : ranks) rank.join();
  }
}

// Goal: processes that share nothing but a file's name come together. Method: three children; each ends with 0 if its
// sum is right.
TEST(Rendezvous, ProcessesMeetThroughAFile) {
  LauncherEnvironment environment;
  environment.world_size = 4;
  environment.run_id = "test";
  environment.store_file = testing::TempDir() + "rendezvous." + std::to_string(::getpid());
  std::filesystem::remove(environment.store_file);  // of an earlier run
  const auto work = [&](int rank) {
    environment.rank = rank;
    const auto place = open_meeting_place(environment, nullptr, long_ms);
    if (!place.ok()) return 2;
    auto joined = join_world(place->store, rank, 4, options_of());
    if (!joined.ok()) return 3;
    std::vector<float> data{static_cast<float>(rank)};
    Group group = group_of_all(*joined);
    if (!group.all_reduce_tree(data).ok() || data[0] != 6.0F) return 4;
    return group.barrier().ok() ? 0 : 5;
  };
  std::vector<pid_t> children;
  for (int rank = 1; rank < 4; ++rank) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(work(rank));
    children.push_back(child);
  }
  EXPECT_EQ(work(0), 0);
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
}

}  // namespace
}  // namespace chorus
