#include <algorithm>

#include "base/check.h"
#include "dist/group.h"
#include "dist/tree_sum.h"

namespace chorus {
namespace {

// Up to here every rank gets everything and sums it: one exchange instead of two. 16,384 floats are 64 KiB.
constexpr std::size_t direct_floats_max = 16'384;

}  // namespace

Result<void> Group::all_reduce_tree(std::span<float> data) {
  CHECK((size() & (size() - 1)) == 0, "the reduction tree needs a power of two, not {} ranks", size());
  if (size() == 1 || data.empty()) return {};
  if (data.size() <= direct_floats_max) {
    received_.resize(data.size() * members_.size());
    CHORUS_TRY_VOID(all_gather(data, received_));
    const auto piece = [&](int r) { return received_.data() + static_cast<std::size_t>(r) * data.size(); };
    tree_sum(piece, 0, size(), data.size(), data.data());
    return {};
  }
  // Each rank sums its part, in place, then all get all parts.
  const std::size_t share = (data.size() + members_.size() - 1) / members_.size();
  std::vector<std::size_t> counts(members_.size()), bytes(members_.size());
  for (std::size_t r = 0; r < counts.size(); ++r) {
    const std::size_t first = std::min(data.size(), r * share);
    counts[r] = std::min(share, data.size() - first);
    bytes[r] = counts[r] * sizeof(float);
  }
  const auto index = static_cast<std::size_t>(rank_);
  const auto own = data.subspan(std::min(data.size(), index * share), counts[index]);
  CHORUS_TRY_VOID(reduce_scatter_tree(data, counts, own));
  return all_gather_v(std::as_bytes(own), bytes, std::as_writable_bytes(data));
}

}  // namespace chorus
