#include "worker/memory_events.h"

#include <charconv>
#include <fstream>
#include <iterator>
#include <string>

namespace chorus {
namespace {

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::optional<std::uint64_t> read_out_of_memory_kills(std::string_view events) {
  constexpr std::string_view name = "oom_kill ";
  std::size_t at = events.find(name);
  while (at != std::string_view::npos && at > 0 && events[at - 1] != '\n') at = events.find(name, at + 1);
  if (at == std::string_view::npos) return std::nullopt;
  std::uint64_t count = 0;
  const auto parsed = std::from_chars(events.data() + at + name.size(), events.data() + events.size(), count);
  return parsed.ec == std::errc() ? std::optional(count) : std::nullopt;
}

// Lines of /proc/self/cgroup are "0::/path" for v2 and "4:memory:/path" for v1 (cgroups(7)).
std::optional<std::uint64_t> out_of_memory_kills() {
  std::ifstream cgroups("/proc/self/cgroup");
  for (std::string line; std::getline(cgroups, line);) {
    const std::size_t name = line.find(':') + 1, path = line.find(':', name) + 1;
    if (name == 0 || path == 0) continue;
    const std::string controllers = line.substr(name, path - 1 - name);
    const std::string file = controllers.empty() ? "/sys/fs/cgroup" + line.substr(path) + "/memory.events"
                             : controllers == "memory"
                                 ? "/sys/fs/cgroup/memory" + line.substr(path) + "/memory.oom_control"
                                 : "";
    if (const auto kills = read_out_of_memory_kills(read_all(file))) return kills;
  }
  return std::nullopt;
}

}  // namespace chorus
