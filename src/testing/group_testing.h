// Runs one function as every rank of a world, as threads or as processes, over any backend, for the tests of this room.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "parallel/group.h"
#include "parallel/transport/node_transport.h"
#include "parallel/transport/tcp_transport.h"
#include "testing/slowness.h"

namespace chorus {

// What one rank does, with its transport or with the group of all; what it returns is a failure ("" is none).
using TransportFunction = std::function<std::string(const std::shared_ptr<Transport>&)>;
using RankFunction = std::function<std::string(Group&)>;

inline constexpr int test_timeout_ms = slowness * 60'000;

// The last three pretend two nodes: the halves of the ranks, the even and the odd ones, and the last one alone.
enum class Backend { shared_memory, tcp, tcp_with_key, node_halves, node_evens, node_and_one };
inline constexpr std::array all_backends{Backend::shared_memory, Backend::tcp,        Backend::tcp_with_key,
                                         Backend::node_halves,   Backend::node_evens, Backend::node_and_one};

inline const char* name_of(Backend backend) {
  constexpr std::array names{"SharedMemory", "Tcp", "TcpWithKey", "NodeHalves", "NodeEvens", "NodeAndOne"};
  return names.at(static_cast<std::size_t>(backend));
}

// Each rank joins once, at the same time as the others: in a thread, or in a child that is forked once the world is
// made.
struct TestWorld {
  int size = 0;
  std::function<std::unique_ptr<Transport>(int rank)> join;
};

template <typename T>
T value_of(Result<T> result) {
  CHECK(result.ok(), "{}", result.error().message);
  return std::move(*result);
}

inline std::shared_ptr<const ClusterKey> test_key(char letter = 'k') {
  return std::make_shared<const ClusterKey>(std::string(cluster_key_bytes_min, letter));
}

inline TestWorld make_shared_memory_world(int size, int timeout_ms) {
  const auto world = std::make_shared<SharedWorld>(value_of(SharedWorld::create(size)));
  return {size, [world, timeout_ms](int rank) { return value_of(world->join(rank, timeout_ms)); }};
}

inline TestWorld make_tcp_world(int size, std::shared_ptr<const ClusterKey> key, int timeout_ms) {
  TcpTransportOptions options;
  options.key = std::move(key);
  options.join_timeout_ms = test_timeout_ms;
  options.exchange_timeout_ms = timeout_ms;
  const auto doors = std::make_shared<std::vector<TcpDoor>>();
  std::vector<std::string> contacts;
  for (int rank = 0; rank < size; ++rank) {
    doors->push_back(value_of(TcpDoor::open(options)));
    contacts.push_back(doors->back().contact());
  }
  return {size, [doors, contacts](int rank) {
            return value_of((*doors)[static_cast<std::size_t>(rank)].join(rank, contacts));
          }};
}

// `node_of`: by rank, 0 or 1.
inline TestWorld make_node_world(const std::vector<int>& node_of, int timeout_ms) {
  struct Node {
    std::vector<int> ranks;
    std::optional<SharedWorld> memory;
  };
  const int size = static_cast<int>(node_of.size());
  const auto nodes = std::make_shared<std::array<Node, 2>>();
  for (int rank = 0; rank < size; ++rank)
    (*nodes)[static_cast<std::size_t>(node_of[static_cast<std::size_t>(rank)])].ranks.push_back(rank);
  for (Node& node : *nodes) {
    if (node.ranks.size() > 1) node.memory = value_of(SharedWorld::create(static_cast<int>(node.ranks.size())));
  }
  const TestWorld tcp = make_tcp_world(size, test_key(), timeout_ms);
  return {size, [=](int rank) {
            const Node& node = (*nodes)[static_cast<std::size_t>(node_of[static_cast<std::size_t>(rank)])];
            const auto number = std::ranges::find(node.ranks, rank) - node.ranks.begin();
            std::unique_ptr<Transport> shared;
            if (node.memory) shared = value_of(node.memory->join(static_cast<int>(number), timeout_ms, node.ranks));
            return make_node_transport(tcp.join(rank), std::move(shared), node.ranks);
          }};
}

inline TestWorld make_test_world(Backend backend, int size, int timeout_ms = test_timeout_ms) {
  if (backend == Backend::shared_memory) return make_shared_memory_world(size, timeout_ms);
  if (backend >= Backend::node_halves) {
    std::vector<int> node_of;
    for (int rank = 0; rank < size; ++rank) {
      node_of.push_back(backend == Backend::node_halves  ? (rank < size / 2 ? 0 : 1)
                        : backend == Backend::node_evens ? rank % 2
                                                         : (rank == size - 1 ? 1 : 0));
    }
    return make_node_world(node_of, timeout_ms);
  }
  return make_tcp_world(size, backend == Backend::tcp_with_key ? test_key() : nullptr, timeout_ms);
}

inline Group group_of_all(std::shared_ptr<Transport> transport) {
  std::vector<int> members(static_cast<std::size_t>(transport->size()));
  std::iota(members.begin(), members.end(), 0);
  return Group(std::move(transport), members);
}

inline TransportFunction with_group(const RankFunction& function) {
  return [function](const std::shared_ptr<Transport>& transport) {
    Group group = group_of_all(transport);
    return function(group);
  };
}

// The failures of all ranks, each behind its number.
inline std::string run_as_threads(const TestWorld& world, const TransportFunction& function) {
  std::vector<std::string> failures(static_cast<std::size_t>(world.size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world.size; ++rank) {
    threads.emplace_back([&, rank] { failures[static_cast<std::size_t>(rank)] = function(world.join(rank)); });
  }
  for (auto& thread : threads) thread.join();
  std::string all;
  for (std::size_t r = 0; r < failures.size(); ++r) {
    if (!failures[r].empty()) all += fmt::format("rank {}: {}\n", r, failures[r]);
  }
  return all;
}

// Forks a rank; the child says its failure on stderr and ends with status 1.
inline pid_t fork_rank(const TestWorld& world, int rank, const TransportFunction& function) {
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child != 0) return child;
  const std::string failure = function(world.join(rank));
  if (!failure.empty()) fmt::print(stderr, "rank {}: {}\n", rank, failure);
  ::_exit(failure.empty() ? 0 : 1);
}

inline int exit_status_of(pid_t child) {
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  return status;
}

inline std::string run_as_processes(const TestWorld& world, const TransportFunction& function) {
  std::vector<pid_t> children;
  for (int rank = 0; rank < world.size; ++rank) children.push_back(fork_rank(world, rank, function));
  std::string all;
  for (int rank = 0; rank < world.size; ++rank) {
    const int status = exit_status_of(children[static_cast<std::size_t>(rank)]);
    if (status != 0) all += fmt::format("rank {} ended with status {}\n", rank, status);
  }
  return all;
}

}  // namespace chorus
