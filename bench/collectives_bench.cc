// all_reduce_tree() over processes of this node. Through shared memory, against the two aims of its design: 16 KiB
// between two in less than 10 us (median), and 8 MiB at no less than 60 % of the speed of a plain memcpy of 8 MiB. Over
// TCP on the loopback, without a key and with one: what the tags cost (docs/decisions/008).
//   cmake --preset release -DCHORUS_BENCH=ON && ninja -C build collectives_bench
// In a world of two pretended nodes with half of the ranks each: memory inside a node, TCP with a key between them.
//   build/bench/collectives_bench [RANKS [shared | tcp | tcp-key | nodes]]
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "parallel/group.h"
#include "parallel/transport/node_transport.h"
#include "parallel/transport/tcp_transport.h"

namespace chorus {
namespace {

double median_us(std::vector<Nanoseconds> times) {
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
  return static_cast<double>(times[times.size() / 2]) / 1e3;
}

double memcpy_us(std::size_t bytes, int rounds) {
  std::vector<char> from(bytes, 1), to(bytes, 2);
  std::vector<Nanoseconds> times;
  for (int round = 0; round < rounds; ++round) {
    const Nanoseconds start = monotonic_now();
    std::memcpy(to.data(), from.data(), bytes);
    asm volatile("" ::"r"(to.data()) : "memory");  // so that the copy is not dropped
    times.push_back(monotonic_now() - start);
  }
  return median_us(times);
}

double all_reduce_us(Group& group, std::size_t bytes, int rounds) {
  std::vector<float> data(bytes / sizeof(float), 0.0F);
  std::vector<Nanoseconds> times;
  for (int round = 0; round < rounds; ++round) {
    const Nanoseconds start = monotonic_now();
    const auto done = group.all_reduce_tree(data);
    CHECK(done.ok(), "{}", done.error().message);
    times.push_back(monotonic_now() - start);
  }
  return median_us(times);
}

// Each rank on its own core, as an engine binds its workers: otherwise the kernel may put both on one core, since
// they wake each other.
void bind_to_core(int rank) {
  cpu_set_t allowed, own;
  CHECK(::sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) cores.push_back(core);
  }
  CPU_ZERO(&own);
  CPU_SET(cores[static_cast<std::size_t>(rank) % cores.size()], &own);
  CHECK(::sched_setaffinity(0, sizeof(own), &own) == 0);
}

// Made before the ranks are forked: each then joins.
using Join = std::function<Result<std::unique_ptr<Transport>>(int rank)>;

Join make_shared_world(int ranks) {
  auto made = SharedWorld::create(ranks);
  CHECK(made.ok(), "{}", made.error().message);
  return [world = std::make_shared<SharedWorld>(std::move(*made))](int rank) { return world->join(rank, 10'000); };
}

Join make_tcp_world(int ranks, bool with_key) {
  TcpTransportOptions options;
  if (with_key) options.key = std::make_shared<const ClusterKey>(std::string(cluster_key_bytes_min, 'k'));
  const auto doors = std::make_shared<std::vector<TcpDoor>>();
  std::vector<std::string> contacts;
  for (int rank = 0; rank < ranks; ++rank) {
    auto door = TcpDoor::open(options);
    CHECK(door.ok(), "{}", door.error().message);
    contacts.push_back(door->contact());
    doors->push_back(std::move(*door));
  }
  return [doors, contacts](int rank) { return (*doors)[static_cast<std::size_t>(rank)].join(rank, contacts); };
}

Join make_world_of_nodes(int ranks) {
  const auto memories = std::make_shared<std::vector<SharedWorld>>();
  std::vector<std::vector<int>> nodes(2);
  for (int rank = 0; rank < ranks; ++rank) nodes[rank < ranks / 2 ? 0 : 1].push_back(rank);
  for (const auto& node : nodes) {
    auto made = SharedWorld::create(static_cast<int>(node.size()));
    CHECK(made.ok(), "{}", made.error().message);
    memories->push_back(std::move(*made));
  }
  return [=, tcp = make_tcp_world(ranks, true)](int rank) -> Result<std::unique_ptr<Transport>> {
    const std::size_t node = rank < ranks / 2 ? 0 : 1;
    CHORUS_TRY(auto far, tcp(rank));
    CHORUS_TRY(auto near, (*memories)[node].join(rank - nodes[node].front(), 10'000, nodes[node]));
    return make_node_transport(std::move(far), std::move(near), nodes[node]);
  };
}

void run_rank(const Join& join, int rank) {
  bind_to_core(rank);
  auto transport = join(rank);
  CHECK(transport.ok(), "{}", transport.error().message);
  const int size = (*transport)->size();
  std::vector<int> members(static_cast<std::size_t>(size));
  std::iota(members.begin(), members.end(), 0);
  Group group(std::shared_ptr<Transport>(std::move(*transport)), members);
  for (const std::size_t kib : {4U, 16U, 64U, 256U, 1024U, 8192U}) {
    const std::size_t bytes = kib << 10;
    const int rounds = kib <= 256 ? 4001 : 201;
    const double copy_us = rank == 0 ? memcpy_us(bytes, rounds) : 0.0;
    const double reduce_us = all_reduce_us(group, bytes, rounds);
    if (rank != 0) continue;
    std::printf("all_reduce %5zu KiB, %d processes: %8.1f us median, memcpy %8.1f us, %3.0f %% of its speed\n", kib,
                size, reduce_us, copy_us, 100.0 * copy_us / reduce_us);
  }
}

}  // namespace
}  // namespace chorus

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 2;
  const std::string kind = argc > 2 ? argv[2] : "shared";
  const chorus::Join join = kind == "shared"  ? chorus::make_shared_world(ranks)
                            : kind == "nodes" ? chorus::make_world_of_nodes(ranks)
                                              : chorus::make_tcp_world(ranks, kind == "tcp-key");
  for (int rank = 1; rank < ranks; ++rank) {
    if (::fork() == 0) {
      chorus::run_rank(join, rank);
      ::_exit(0);
    }
  }
  chorus::run_rank(join, 0);
  while (::wait(nullptr) > 0) {
  }
}
