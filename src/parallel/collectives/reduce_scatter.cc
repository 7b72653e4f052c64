#include <algorithm>

#include "base/check.h"
#include "parallel/collectives/tree_sum.h"
#include "parallel/group.h"

namespace chorus {
namespace {

// Pieces are summed while they are still in the cache: 16,384 floats are 64 KiB.
constexpr std::size_t chunk_floats = 16'384;

}  // namespace

Result<void> Group::reduce_scatter_tree(std::span<float> data, std::span<const std::size_t> counts,
                                        std::span<float> out) {
  CHECK((size() & (size() - 1)) == 0, "the reduction tree needs a power of two, not {} ranks", size());
  CHECK(counts.size() == members_.size() && out.size() == counts[static_cast<std::size_t>(rank_)],
        "{} counts for {} ranks, {} out", counts.size(), size(), out.size());
  std::size_t own_offset = 0, longest = 0;
  for (int r = 0; r < size(); ++r) {
    if (r < rank_) own_offset += counts[static_cast<std::size_t>(r)];
    longest = std::max(longest, counts[static_cast<std::size_t>(r)]);
  }
  const auto own = data.subspan(own_offset, out.size());
  if (size() == 1) {
    if (own.data() != out.data()) std::ranges::copy(own, out.begin());
    return {};
  }
  reserve_received(members_.size() * std::min(chunk_floats, out.size()));
  for (std::size_t first = 0; first < longest; first += chunk_floats) {
    outgoing_.clear();
    incoming_.clear();
    const auto chunk_of = [&](std::size_t count) { return first < count ? std::min(chunk_floats, count - first) : 0; };
    const std::size_t own_count = chunk_of(out.size());
    std::size_t offset = 0;
    for (int r = 0; r < size(); ++r) {
      const std::size_t count = counts[static_cast<std::size_t>(r)];
      if (r != rank_ && chunk_of(count) > 0) {
        outgoing_.push_back({member(r), std::as_bytes(data.subspan(offset + first, chunk_of(count)))});
      }
      if (r != rank_ && own_count > 0) {
        incoming_.push_back({member(r), std::as_writable_bytes(std::span(received_).subspan(
                                            static_cast<std::size_t>(r) * own_count, own_count))});
      }
      offset += count;
    }
    CHORUS_TRY_VOID(transport_->exchange(outgoing_, incoming_));
    if (own_count == 0) continue;
    for (std::size_t r = 0; r < members_.size(); ++r) pieces_[r] = received_.data() + r * own_count;
    pieces_[static_cast<std::size_t>(rank_)] = own.data() + first;
    tree_sum(pieces_.data(), size(), own_count, out.data() + first);
  }
  return {};
}

}  // namespace chorus
