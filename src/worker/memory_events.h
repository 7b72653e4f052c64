// How many processes of this process's memory cgroup the kernel has killed because memory ran out.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace chorus {

// Absent where the cgroup is not readable. Counts since the cgroup was made.
std::optional<std::uint64_t> out_of_memory_kills();

// The number after "oom_kill" in memory.events (cgroup v2) or memory.oom_control (v1).
std::optional<std::uint64_t> read_out_of_memory_kills(std::string_view events);

}  // namespace chorus
