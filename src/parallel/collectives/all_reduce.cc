#include <algorithm>

#include "base/check.h"
#include "parallel/collectives/tree_sum.h"
#include "parallel/group.h"

namespace chorus {
namespace {

// Up to here every rank gets everything and sums it: one exchange instead of two, for (ranks - 1) / 2 times the bytes.
constexpr std::size_t direct_floats_max = 16'384;
// What is received before it is summed, so that both happen in the cache: 256 KiB over all ranks.
constexpr std::size_t received_floats = 65'536;

}  // namespace

Result<void> Group::all_reduce_tree(std::span<float> data) {
  CHECK((size() & (size() - 1)) == 0, "the reduction tree needs a power of two, not {} ranks", size());
  if (size() == 1) return {};
  // Between two ranks, the halves of a scattered reduction are as many bytes as everything.
  if (size() == 2 || data.size() * members_.size() <= direct_floats_max) return all_reduce_direct(data);
  return all_reduce_scattered(data);
}

Result<void> Group::all_reduce_direct(std::span<float> data) {
  for (std::size_t first = 0; first < data.size(); first += direct_floats_max) {
    const auto chunk = data.subspan(first, std::min(direct_floats_max, data.size() - first));
    reserve_received(chunk.size() * members_.size());
    outgoing_.clear();
    incoming_.clear();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) {
        pieces_[static_cast<std::size_t>(r)] = chunk.data();
        continue;
      }
      const auto piece = std::span(received_).subspan(static_cast<std::size_t>(r) * chunk.size(), chunk.size());
      pieces_[static_cast<std::size_t>(r)] = piece.data();
      outgoing_.push_back({member(r), std::as_bytes(chunk)});
      incoming_.push_back({member(r), std::as_writable_bytes(piece)});
    }
    CHORUS_TRY_VOID(transport_->exchange(outgoing_, incoming_));
    tree_sum(pieces_.data(), size(), chunk.size(), chunk.data());
  }
  return {};
}

// In blocks. Of each block a rank sums one part and gives the sum to all; the sums of a block travel together with the
// parts of the next one, while they are still in the cache.
Result<void> Group::all_reduce_scattered(std::span<float> data) {
  const std::size_t ranks = members_.size(), block_floats = received_floats;
  reserve_received(std::min(data.size(), block_floats) + ranks);
  // Rank r's part of the block that begins at `first`.
  const auto part_of = [&](std::size_t first, int r) {
    const std::size_t count = std::min(block_floats, data.size() - first), share = (count + ranks - 1) / ranks;
    const std::size_t begin = std::min(count, static_cast<std::size_t>(r) * share);
    return data.subspan(first + begin, std::min(share, count - begin));
  };
  for (std::size_t first = 0; first < data.size() + block_floats; first += block_floats) {
    outgoing_.clear();
    incoming_.clear();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_ || first == 0) continue;
      outgoing_.push_back({member(r), std::as_bytes(part_of(first - block_floats, rank_))});
      incoming_.push_back({member(r), std::as_writable_bytes(part_of(first - block_floats, r))});
    }
    const auto own = first < data.size() ? part_of(first, rank_) : std::span<float>();
    for (int r = 0; r < size() && first < data.size(); ++r) {
      const auto piece = std::span(received_).subspan(static_cast<std::size_t>(r) * own.size(), own.size());
      pieces_[static_cast<std::size_t>(r)] = r == rank_ ? own.data() : piece.data();
      if (r == rank_) continue;
      outgoing_.push_back({member(r), std::as_bytes(part_of(first, r))});
      incoming_.push_back({member(r), std::as_writable_bytes(piece)});
    }
    CHORUS_TRY_VOID(transport_->exchange(outgoing_, incoming_));
    tree_sum(pieces_.data(), size(), own.size(), own.data());
  }
  return {};
}

}  // namespace chorus
