// Who computes which prompt of a batch whose size is known (offline generation, workflow batches):
//
//   modulo       prompt i belongs to rank i mod R
//   contiguous   the first ranks take the first, larger shares: 33 over 4 is [9, 8, 8, 8]
//   priority     by priority (lower first, equals in input order), then dealt in turn
//   dynamic      nobody in particular: the load balancer chooses when a prompt's turn comes
//
// Output does not depend on any of it, only speed does. Pure: no clock, no thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "config/engine_config.h"

namespace chorus {

// `total` in `parts` that differ by at most one, larger parts first: even_split(33, 4) is [9, 8, 8, 8].
std::vector<std::size_t> even_split(std::size_t total, std::size_t parts);

// The rank of each of so many prompts, in input order. `priorities`: of each prompt; read by AssignmentName::priority,
// may be empty otherwise.
std::vector<std::optional<int>> assign_ranks(AssignmentName name, int ranks, std::size_t prompts,
                                             std::span<const std::int32_t> priorities = {});

}  // namespace chorus
