// chorus env: what was found on this machine, for people and, with --json, for bug reports.
#include <gnu/libc-version.h>
#include <sys/utsname.h>
#include <unicode/uversion.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "cli/commands.h"
#include "cli/version.h"
#include "config/gpus.h"
#include "config/node.h"
#include "exec/load_weights.h"
#include "json/json.h"
#include "kernels/gpu_runtime.h"

namespace chorus {
namespace {

// Those that a kernel uses or would gain from.
const std::set<std::string> features_of_interest = {
    "sse4_2",   "avx",         "avx2",        "fma",         "f16c",     "avx512f",  "avx512bw", "avx512dq",
    "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"};

std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The value of the first "KEY : VALUE" in /proc/cpuinfo.
std::string cpuinfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (line.rfind(key, 0) == 0 && colon != std::string::npos && line.size() > colon + 2) return line.substr(colon + 2);
  }
  return "unknown";
}

Json cpu_found() {
  Json features = Json::array(), isas = Json::array();
  std::istringstream flags(cpuinfo("flags"));
  for (std::string flag; flags >> flag;) {
    if (features_of_interest.contains(flag)) features.push_back(flag);
  }
  for (const Isa isa : available_isas()) isas.push_back(name_of(isa));
  return {{"model", cpuinfo("model name")}, {"features", features}, {"instruction_sets", isas}};
}

// What --cpu-isa auto means for each dtype.
Json profiles_found() {
  Json profiles = Json::object();
  for (const DType dtype : compute_dtypes())
    profiles[name_of(dtype)] = numerics_profile(available_isas().front(), dtype);
  return profiles;
}

Json numa_nodes_found() {
  Json nodes = Json::array();
  const std::filesystem::path root = "/sys/devices/system/node";
  for (int node = 0; std::filesystem::exists(root / fmt::format("node{}", node)); ++node) {
    const std::filesystem::path path = root / fmt::format("node{}", node);
    std::istringstream memory(first_line(path / "meminfo"));  // "Node 0 MemTotal:  24532192 kB"
    std::string word;
    std::uint64_t number = 0, kibibytes = 0;
    memory >> word >> number >> word >> kibibytes;
    nodes.push_back({{"node", node}, {"cpus", first_line(path / "cpulist")}, {"memory_bytes", kibibytes * 1024}});
  }
  return nodes;
}

// What the NVIDIA driver shows this process.
Json gpus_found() {
  Json gpus = Json::array();
  for (const Gpu& gpu : detect_gpus()) {
    gpus.push_back({{"name", gpu.name},
                    {"memory_bytes", gpu.memory_bytes},
                    {"compute_capability", fmt::format("{}.{}", gpu.capability / 10, gpu.capability % 10)}});
  }
  return gpus;
}

Json libraries_found() {
  char pcre2[64] = {};
  pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
  UVersionInfo version{};
  u_getVersion(version);
  char icu[U_MAX_VERSION_STRING_LENGTH] = {};
  u_versionToString(version, icu);
  return {{"libc", gnu_get_libc_version()},
          {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
          {"nlohmann_json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                        NLOHMANN_JSON_VERSION_PATCH)},
          {"pcre2", pcre2},
          {"icu", icu}};
}

Json found() {
  const NodeResources node = detect_node();
  utsname system{};
  ::uname(&system);
  Json limit = nullptr;
  if (node.cpu_limit > 0) limit = node.cpu_limit;
  return {{"version", version()},
          {"compiler", "g++ " __VERSION__},
          {"system", fmt::format("{} {} {}", system.sysname, system.release, system.machine)},
          {"cpu", cpu_found()},
          {"numerics_profiles", profiles_found()},
          {"cores", {{"usable", node.cores()}, {"affinity", node.cpus}, {"cgroup_limit", limit}}},
          {"memory", {{"total_bytes", node.memory_total_bytes}, {"available_bytes", node.memory_available_bytes}}},
          {"numa_nodes", numa_nodes_found()},
          {"transparent_huge_pages_shared", first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled")},
          {"gpus", {{"found", gpus_found()}, {"cuda_backend", gpu::is_real()}}},
          {"libraries", libraries_found()}};
}

std::string joined(const Json& list) {
  std::string text;
  for (const Json& entry : list) {
    if (!text.empty()) text += ' ';
    text += entry.is_string() ? entry.get<std::string>() : entry.dump();
  }
  return text.empty() ? "none" : text;
}

std::string gibibytes(const Json& bytes) {
  return fmt::format("{:.1f} GiB", bytes.get<double>() / (1U << 30));
}

std::string text_of(const Json& env) {
  std::string text;
  const auto row = [&text](const char* name, const std::string& value) {
    text += fmt::format("{:<18} {}\n", name, value);
  };
  const auto string = [](const Json& value) { return value.get<std::string>(); };
  row("chorus", string(env["version"]));
  row("compiler", string(env["compiler"]));
  row("system", string(env["system"]));
  row("cpu", string(env["cpu"]["model"]));
  row("cpu features", joined(env["cpu"]["features"]));
  row("instruction sets", joined(env["cpu"]["instruction_sets"]) + "  (best first; --cpu-isa)");
  for (const auto& [dtype, profile] : env["numerics_profiles"].items())
    row("numerics profile", fmt::format("{}  (--dtype {})", string(profile), dtype));
  const Json& cores = env["cores"];
  row("cores",
      fmt::format("{} usable; affinity {}; cgroup limit {}", cores["usable"].get<int>(), joined(cores["affinity"]),
                  cores["cgroup_limit"].is_null() ? "none" : cores["cgroup_limit"].dump()));
  row("memory", gibibytes(env["memory"]["total_bytes"]) + ", available " + gibibytes(env["memory"]["available_bytes"]));
  for (const Json& node : env["numa_nodes"]) {
    row("NUMA node",
        fmt::format("{}: cpus {}, {}", node["node"].get<int>(), string(node["cpus"]), gibibytes(node["memory_bytes"])));
  }
  row("huge shared pages", string(env["transparent_huge_pages_shared"]));
  for (const Json& gpu : env["gpus"]["found"]) {
    row("GPU", fmt::format("{}, {}, compute capability {}", string(gpu["name"]), gibibytes(gpu["memory_bytes"]),
                           string(gpu["compute_capability"])));
  }
  if (env["gpus"]["found"].empty()) row("GPUs", "none");
  row("CUDA backend", env["gpus"]["cuda_backend"].get<bool>() ? "yes: --device cuda" : "not in this build");
  for (const auto& [name, version] : env["libraries"].items())
    row("library", fmt::format("{} {}", name, string(version)));
  return text;
}

}  // namespace

std::function<Result<int>()> declare_env(Options& options) {
  auto json = std::make_shared<bool>(false);
  options.flag("--json", json.get(), "one JSON object");
  return [json]() -> Result<int> {
    const Json env = found();
    const std::string text = *json ? env.dump(2) + "\n" : text_of(env);
    if (std::fputs(text.c_str(), stdout) < 0 || std::fflush(stdout) != 0)
      return fail(ErrorCode::internal, "stdout: cannot write");
    return exit_done;
  };
}

}  // namespace chorus
