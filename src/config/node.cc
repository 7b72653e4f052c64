#include "config/node.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

#include "base/check.h"
#include "config/gpus.h"

namespace chorus {
namespace {

constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

// The first line of a small kernel file, or nothing.
std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "max", nothing and v1's huge "no limit" all read as unlimited.
std::uint64_t read_limit(const std::string& path) {
  const std::string line = first_line(path);
  std::uint64_t value = unlimited;
  std::from_chars(line.data(), line.data() + line.size(), value);
  return value;
}

// The value of "KEY: N kB" in /proc/meminfo, in bytes; 0 if it is not there.
std::uint64_t meminfo_bytes(const std::string& root, const std::string& key) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key + ":", 0) != 0) continue;
    return std::strtoull(line.c_str() + key.size() + 1, nullptr, 10) * 1024;
  }
  return 0;
}

// The value of "KEY N" in a cgroup's memory.stat; 0 if it is not there.
std::uint64_t stat_bytes(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  for (std::uint64_t value = 0; file >> name >> value;) {
    if (name == key) return value;
  }
  return 0;
}

struct MemoryLimit {
  std::uint64_t total = unlimited;
  std::uint64_t available = unlimited;
};

// Page cache that the kernel would drop first does not count as used.
void apply_memory_limit(std::uint64_t limit, std::uint64_t used, std::uint64_t inactive_file, MemoryLimit* memory) {
  if (limit == unlimited) return;
  used = used == unlimited ? 0 : used - std::min(used, inactive_file);
  memory->total = std::min(memory->total, limit);
  memory->available = std::min(memory->available, limit - std::min(limit, used));
}

// The cgroup folders that hold for this process, innermost first: `mount` + path, its parents, `mount` itself.
std::vector<std::string> cgroup_folders(const std::string& mount, std::string path) {
  std::vector<std::string> folders;
  while (!path.empty() && path != "/") {
    folders.push_back(mount + path);
    path.erase(path.rfind('/'));
  }
  folders.push_back(mount);
  return folders;
}

// The path of this process in the v2 tree (empty controllers) or in a v1 one, from lines "id:controllers:path".
std::string cgroup_path(const std::string& root, const std::string& controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':'), second = line.find(':', first == std::string::npos ? first : first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const bool found = controller.empty() ? controllers == ",,"
                                          : controllers.find(fmt::format(",{},", controller)) != std::string::npos;
    const std::string path = line.substr(second + 1);
    if (found && path.starts_with('/')) return path;
  }
  return "";
}

MemoryLimit cgroup_memory(const std::string& root) {
  MemoryLimit memory;
  const std::string mount = root + "/sys/fs/cgroup";
  for (const std::string& folder : cgroup_folders(mount, cgroup_path(root, ""))) {
    apply_memory_limit(read_limit(folder + "/memory.max"), read_limit(folder + "/memory.current"),
                       stat_bytes(folder + "/memory.stat", "inactive_file"), &memory);
  }
  for (const std::string& folder : cgroup_folders(mount + "/memory", cgroup_path(root, "memory"))) {
    apply_memory_limit(read_limit(folder + "/memory.limit_in_bytes"), read_limit(folder + "/memory.usage_in_bytes"),
                       stat_bytes(folder + "/memory.stat", "total_inactive_file"), &memory);
  }
  return memory;
}

// Cores' worth of time: quota / period, the least on the way up; 0 for no limit.
double cgroup_cpu_limit(const std::string& root) {
  double limit = std::numeric_limits<double>::infinity();
  const auto apply = [&](double quota, double period) {
    if (quota > 0 && period > 0) limit = std::min(limit, quota / period);
  };
  const std::string mount = root + "/sys/fs/cgroup";
  for (const std::string& folder : cgroup_folders(mount, cgroup_path(root, ""))) {
    std::istringstream line(first_line(folder + "/cpu.max"));
    double quota = 0, period = 0;
    if (line >> quota >> period) apply(quota, period);  // "max 100000" does not read as a number
  }
  for (const std::string& folder : cgroup_folders(mount + "/cpu", cgroup_path(root, "cpu"))) {
    apply(std::atof(first_line(folder + "/cpu.cfs_quota_us").c_str()),
          std::atof(first_line(folder + "/cpu.cfs_period_us").c_str()));
  }
  return std::isfinite(limit) ? limit : 0;
}

void read_memory(const std::string& root, NodeResources* node) {
  const MemoryLimit cgroup = cgroup_memory(root);
  node->memory_total_bytes = std::min(meminfo_bytes(root, "MemTotal"), cgroup.total);
  node->memory_available_bytes = std::min(meminfo_bytes(root, "MemAvailable"), cgroup.available);
}

std::vector<int> affinity() {
  std::vector<int> cpus;
  for (int bits = 1024; bits <= 1 << 20; bits *= 2) {  // the kernel says EINVAL when its mask is longer
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(bits));
    CHECK(set != nullptr, "out of memory");
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(bits));
    const bool read = ::sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; read && cpu < bits; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (read) break;
  }
  return cpus;
}

Result<int> parse_cpu(std::string_view text, std::string_view whole) {
  int cpu = -1;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), cpu);
  constexpr int cpu_max = 1 << 20;
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || cpu < 0 || cpu > cpu_max) {
    return fail(ErrorCode::invalid_argument,
                "cpu-threads-bind \"{}\": \"{}\" is no core; accepted: auto, none, or a core list for each worker "
                "such as 0-3,8|4-7",
                whole, text);
  }
  return cpu;
}

// "0-3,8"
Result<std::vector<int>> parse_cpu_set(std::string_view text, std::string_view whole) {
  std::set<int> cpus;
  while (true) {
    const std::string_view part = text.substr(0, text.find(','));
    const auto dash = part.find('-');
    CHORUS_TRY(const int first, parse_cpu(part.substr(0, dash), whole));
    int last = first;
    if (dash != std::string_view::npos) {
      CHORUS_TRY(last, parse_cpu(part.substr(dash + 1), whole));
    }
    if (last < first)
      return fail(ErrorCode::invalid_argument, "cpu-threads-bind \"{}\": the range {} goes down", whole, part);
    for (int cpu = first; cpu <= last; ++cpu) cpus.insert(cpu);
    if (part.size() == text.size()) break;
    text.remove_prefix(part.size() + 1);
  }
  return std::vector<int>(cpus.begin(), cpus.end());
}

// Disjoint runs of neighbouring cores, threads_per_worker each; nothing where they do not suffice.
std::vector<std::vector<int>> automatic_sets(std::size_t workers, std::size_t threads, const NodeResources& node) {
  std::vector<std::vector<int>> sets(workers);
  // Under a cgroup's time limit, pinning to a few cores would only keep the kernel from using the idle ones.
  const bool limited = node.cores() < static_cast<int>(node.cpus.size());
  if (limited || workers * threads > node.cpus.size()) return sets;
  for (std::size_t worker = 0; worker < workers; ++worker) {
    const auto begin = node.cpus.begin() + static_cast<std::ptrdiff_t>(worker * threads);
    sets[worker].assign(begin, begin + static_cast<std::ptrdiff_t>(threads));
  }
  return sets;
}

void warn_about(const std::vector<std::vector<int>>& sets, int threads, std::vector<std::string>* warnings) {
  std::set<int> seen;
  bool overlap = false;
  for (std::size_t worker = 0; worker < sets.size(); ++worker) {
    for (const int cpu : sets[worker]) overlap = !seen.insert(cpu).second || overlap;
    if (sets[worker].size() < static_cast<std::size_t>(threads)) {
      warnings->push_back(fmt::format("cpu-threads-bind: {} threads of worker {} share {} cores", threads, worker,
                                      sets[worker].size()));
    }
  }
  if (overlap)
    warnings->push_back("cpu-threads-bind: the core sets of some workers overlap; they will slow each other down");
}

int workers_of_node(const EngineConfig& config) {
  return std::max(1, config.parallel.local_workers());
}

}  // namespace

int NodeResources::cores() const {
  int cores = static_cast<int>(cpus.size());
  if (cpu_limit > 0) cores = std::min(cores, static_cast<int>(std::ceil(std::min(cpu_limit, 1e6))));
  return std::max(cores, 1);
}

NodeResources detect_node() {
  return detect_node("", affinity());
}

NodeResources detect_node(const std::string& root, std::vector<int> cpus) {
  NodeResources node;
  node.cpus = std::move(cpus);
  node.cpu_limit = cgroup_cpu_limit(root);
  read_memory(root, &node);
  return node;
}

std::uint64_t memory_available_bytes() {
  NodeResources node;
  read_memory("", &node);
  return node.memory_available_bytes;
}

int threads_per_worker(const EngineConfig& config, const NodeResources& node) {
  if (config.threads > 0) return config.threads;
  const auto sets = parse_cpu_sets(config.cpu_threads_bind);
  if (config.cpu_threads_bind != "auto" && config.cpu_threads_bind != "none" && sets) {
    std::size_t smallest = sets->front().size();
    for (const auto& set : *sets) smallest = std::min(smallest, set.size());
    return static_cast<int>(smallest);
  }
  return std::max(1, node.cores() / workers_of_node(config));
}

Result<std::vector<std::vector<int>>> parse_cpu_sets(const std::string& text) {
  std::vector<std::vector<int>> sets;
  std::string_view rest = text;
  while (true) {
    const std::string_view part = rest.substr(0, rest.find('|'));
    CHORUS_TRY(auto set, parse_cpu_set(part, text));
    sets.push_back(std::move(set));
    if (part.size() == rest.size()) return sets;
    rest.remove_prefix(part.size() + 1);
  }
}

Result<std::vector<std::vector<int>>> cpu_sets_per_worker(const EngineConfig& config, const NodeResources& node,
                                                          std::vector<std::string>* warnings) {
  const auto workers = static_cast<std::size_t>(workers_of_node(config));
  const int threads = threads_per_worker(config, node);
  if (config.cpu_threads_bind == "none") return std::vector<std::vector<int>>(workers);
  if (config.cpu_threads_bind == "auto") return automatic_sets(workers, static_cast<std::size_t>(threads), node);
  CHORUS_TRY(auto sets, parse_cpu_sets(config.cpu_threads_bind));
  if (sets.size() != workers) {
    return fail(ErrorCode::invalid_argument,
                "cpu-threads-bind \"{}\" has {} core sets for {} workers; give one for each, with | between",
                config.cpu_threads_bind, sets.size(), workers);
  }
  for (const auto& set : sets) {
    for (const int cpu : set) {
      if (std::binary_search(node.cpus.begin(), node.cpus.end(), cpu)) continue;
      return fail(ErrorCode::invalid_argument,
                  "cpu-threads-bind \"{}\": core {} is not among the {} this process may use ({} to {})",
                  config.cpu_threads_bind, cpu, node.cpus.size(), node.cpus.empty() ? -1 : node.cpus.front(),
                  node.cpus.empty() ? -1 : node.cpus.back());
    }
  }
  warn_about(sets, threads, warnings);
  for (auto& set : sets) {  // one core a thread: the first ones of a larger set, a smaller one again from its start
    const std::size_t size = set.size();
    set.resize(static_cast<std::size_t>(threads));
    for (std::size_t i = size; i < set.size(); ++i) set[i] = set[i % size];
  }
  return sets;
}

namespace {

// Of a GPU's memory: what CUDA itself takes for a process, and what a row of a step needs for its intermediate results,
// in elements of the hidden state's width: at most 64 KiB of them are (hidden 4096, feed-forward 14336, float32 and
// bfloat16).
constexpr std::uint64_t gpu_context_bytes = std::uint64_t{1} << 30;
constexpr std::uint64_t gpu_row_bytes = std::uint64_t{256} << 10;

// Replicas of this node on one GPU share its memory; each has the weights.
Result<std::uint64_t> kv_cache_bytes_on_gpu(const EngineConfig& config, std::uint64_t weight_bytes) {
  if (config.kv_cache_bytes > 0) return config.kv_cache_bytes;
  const std::vector<Gpu> gpus = detect_gpus();
  if (gpus.empty()) return kv_cache_bytes_default_max;
  const auto workers = static_cast<std::uint64_t>(workers_of_node(config));
  const std::uint64_t sharing = (workers + gpus.size() - 1) / gpus.size();
  const auto least = std::ranges::min_element(gpus, {}, &Gpu::memory_bytes);
  const double allowed = static_cast<double>(least->memory_bytes) * config.gpu_memory_fraction();
  const std::uint64_t share = static_cast<std::uint64_t>(allowed) / sharing;
  const std::uint64_t taken =
      weight_bytes + gpu_context_bytes + gpu_row_bytes * static_cast<std::uint64_t>(config.max_num_batched_tokens);
  if (share > taken) return share - taken;
  return fail(
      ErrorCode::resource_exhausted,
      "{} replicas share a GPU ({}) of {} bytes: {} of them each, and weights and intermediate results take {}; "
      "start fewer, or raise --gpu-memory-utilization",
      sharing, least->name, least->memory_bytes, share, taken);
}

}  // namespace

Result<std::uint64_t> kv_cache_bytes_per_worker(const EngineConfig& config, const NodeResources& node,
                                                std::uint64_t weight_bytes) {
  if (config.device == "cuda") return kv_cache_bytes_on_gpu(config, weight_bytes);
  const auto workers = static_cast<std::uint64_t>(workers_of_node(config));
  const std::uint64_t available = node.memory_available_bytes;
  const std::uint64_t left = available - std::min(available, weight_bytes);
  if (config.kv_cache_bytes > left / workers) {
    return fail(ErrorCode::resource_exhausted,
                "kv-cache-memory {} bytes for each of {} workers is more than the {} bytes left after {} of weights; "
                "at most {} fit",
                config.kv_cache_bytes, workers, left, weight_bytes, left / workers);
  }
  if (config.kv_cache_bytes > 0) return config.kv_cache_bytes;
  return std::min(kv_cache_bytes_default_max, left / 2 / workers);
}

}  // namespace chorus
