// What this process may use of the machine it is on, and how N workers share it: cores, memory, thread counts, core
// sets.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"

namespace chorus {

struct NodeResources {
  std::vector<int> cpus;                     // ids this process may run on, ascending (its affinity mask)
  double cpu_limit = 0;                      // cores' worth of time the cgroup allows; 0: no limit
  std::uint64_t memory_total_bytes = 0;      // of the machine, or the cgroup's limit where that is lower
  std::uint64_t memory_available_bytes = 0;  // without swapping, under the cgroup's limit
  // Cores to plan with: cpus.size(), or the cgroup's limit rounded up where that is lower; at least 1.
  int cores() const;
};

// Reads the affinity mask, /proc/meminfo and the cgroup (v2 or v1) limits; what is not there does not limit.
NodeResources detect_node();

// The same with the files under `root` instead of "/" and these cpus: for tests.
NodeResources detect_node(const std::string& root, std::vector<int> cpus);

// detect_node().memory_available_bytes without the rest.
std::uint64_t memory_available_bytes();

// config.threads if it is set, else the cores divided by this node's workers of all replicas, at least 1. Where
// cpu_threads_bind names core sets, 0 means the size of the smallest set.
int threads_per_worker(const EngineConfig& config, const NodeResources& node);

// The cores of each worker of this node in rank order, one set a worker; empty sets where nothing is to be pinned
// ("none", or "auto" with more workers times threads than cores). "auto" gives the workers disjoint runs of
// neighbouring cores. A list must have a set for each worker, of cores that are there. `warnings` takes what is allowed
// but slow: sets that overlap, fewer cores than threads.
Result<std::vector<std::vector<int>>> cpu_sets_per_worker(const EngineConfig& config, const NodeResources& node,
                                                          std::vector<std::string>* warnings);

// "0-3,8|4-7": the sets as they are written. Errors name the part.
Result<std::vector<std::vector<int>>> parse_cpu_sets(const std::string& text);

// What a worker takes at most where no size was given.
inline constexpr std::uint64_t kv_cache_bytes_default_max = std::uint64_t{4} << 30;

// Bytes of KV cache a worker: config.kv_cache_bytes if it is set (an error when the workers together pass the memory
// that is there), else half of (available memory - weights) / workers, at most kv_cache_bytes_default_max. `weight_bytes`: still to be loaded.
Result<std::uint64_t> kv_cache_bytes_per_worker(const EngineConfig& config, const NodeResources& node,
                                                std::uint64_t weight_bytes);

}  // namespace chorus
