#include "cluster/partition/assignment.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace chorus {

std::vector<std::size_t> even_split(std::size_t total, std::size_t parts) {
  CHECK(parts > 0, "parts {}", parts);
  std::vector<std::size_t> shares(parts, total / parts);
  for (std::size_t part = 0; part < total % parts; ++part) ++shares[part];
  return shares;
}

std::vector<std::optional<int>> assign_ranks(AssignmentName name, int ranks, std::size_t prompts,
                                             std::span<const std::int32_t> priorities) {
  CHECK(ranks > 0, "ranks {}", ranks);
  std::vector<std::optional<int>> assigned(prompts);
  std::vector<std::size_t> order(prompts);
  std::iota(order.begin(), order.end(), std::size_t{0});
  switch (name) {
    case AssignmentName::dynamic:
      return assigned;
    case AssignmentName::contiguous: {
      const std::vector<std::size_t> shares = even_split(prompts, static_cast<std::size_t>(ranks));
      std::size_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const std::size_t end = next + shares[static_cast<std::size_t>(rank)];
        for (; next < end; ++next) assigned[next] = rank;
      }
      return assigned;
    }
    case AssignmentName::priority:
      CHECK(priorities.size() == prompts, "{} priorities of {} prompts", priorities.size(), prompts);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return priorities[a] < priorities[b]; });
      [[fallthrough]];
    case AssignmentName::modulo:
      for (std::size_t i = 0; i < prompts; ++i)
        assigned[order[i]] = static_cast<int>(i % static_cast<std::size_t>(ranks));
      return assigned;
  }
  CHECK(false, "assignment {}", static_cast<int>(name));
}

}  // namespace chorus
