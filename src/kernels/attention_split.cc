#include "kernels/attention_split.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {

SplitAttention::SplitAttention(ThreadPool& pool, Scratch& scratch, Isa isa, const KvCacheLayer& cache,
                               std::span<const AttentionSequence> sequences, const AttentionParams& params,
                               const float* q, std::int64_t ldq, float* out, std::int64_t ldo,
                               std::int64_t chunk_floats_max)
    : pool_(pool),
      scratch_(scratch),
      scope_(scratch),
      plan_(plan_attention(pool, scratch, isa, cache, sequences, params, q, ldq, out, ldo)),
      share_(cache.share),
      chunk_floats_max_(chunk_floats_max) {
  carried_ = scratch.take_array<float>(plan_.kernels->lanes_max * plan_.lane_floats());
  bytes_of_shares_ = {scratch.take_array<std::size_t>(share_.count), static_cast<std::size_t>(share_.count)};
  if (!plan_.tiles.empty()) at_.partition = partitions_of(plan_.call, plan_.tiles[0]).first;
}

void SplitAttention::advance(Cursor* cursor) const {
  if (++cursor->partition < partitions_of(plan_.call, plan_.tiles[cursor->tile]).last) return;
  if (++cursor->tile < plan_.tiles.size()) {
    cursor->partition = partitions_of(plan_.call, plan_.tiles[cursor->tile]).first;
  }
}

bool SplitAttention::next() {
  chunk_scope_.reset();
  if (at_.tile == plan_.tiles.size()) return false;
  chunk_scope_.emplace(scratch_);
  std::ranges::fill(bytes_of_shares_, 0);
  std::int64_t item_count = 0, floats = 0;
  Cursor end = at_;
  while (end.tile < plan_.tiles.size()) {
    const std::int64_t more = floats_of(end.tile);
    if (item_count > 0 && floats + more > chunk_floats_max_) break;
    bytes_of_shares_[static_cast<std::size_t>(end.partition % share_.count)] +=
        static_cast<std::size_t>(more) * sizeof(float);
    floats += more;
    ++item_count;
    advance(&end);
  }
  place_states(end, item_count, floats);
  list_tiles_of_chunk();
  return true;
}

// A share's states follow one another in the order of the items.
void SplitAttention::place_states(Cursor end, std::int64_t item_count, std::int64_t floats) {
  all_ = {scratch_.take_array<float>(floats), static_cast<std::size_t>(floats)};
  items_ = {scratch_.take_array<Item>(item_count), static_cast<std::size_t>(item_count)};
  auto** free = scratch_.take_array<float*>(share_.count);
  float* part = all_.data();
  for (int share = 0; share < share_.count; ++share) {
    const std::size_t part_floats = bytes_of_shares_[static_cast<std::size_t>(share)] / sizeof(float);
    if (share == share_.index) own_ = {part, part_floats};
    free[share] = part;
    part += part_floats;
  }
  for (Item& item : items_) {
    float*& state = free[at_.partition % share_.count];
    item = {at_.tile, at_.partition, state};
    state += floats_of(at_.tile);
    advance(&at_);
  }
  CHECK(at_.tile == end.tile, "a chunk ended at tile {}, not {}", at_.tile, end.tile);
}

void SplitAttention::list_tiles_of_chunk() {
  const std::size_t count = items_.back().tile - items_.front().tile + 1;
  tiles_ = {scratch_.take_array<TileItems>(static_cast<std::int64_t>(count)), count};
  const Item* const end = items_.data() + items_.size();
  for (const Item* item = items_.data(); item < end;) {
    const Item* const next = std::find_if(item, end, [&](const Item& other) { return other.tile != item->tile; });
    tiles_[item->tile - items_.front().tile] = {item, next};
    item = next;
  }
}

void SplitAttention::compute() {
  for_each_item(pool_, std::ssize(items_), [&](std::int64_t i, int thread) {
    const Item& item = items_[static_cast<std::size_t>(i)];
    if (!share_.holds(item.partition)) return;
    const AttentionWorkspace& work = plan_.work[static_cast<std::size_t>(thread)];
    const AttentionTile& tile = plan_.tiles[item.tile];
    plan_.kernels->pack(plan_.call, tile, work.packed);
    plan_.kernels->partition(plan_.call, tile, work.packed, item.partition, work.weights, item.state);
  });
}

// The state of the tile over its partitions of this chunk and those before. Only a chunk's first tile may have begun
// earlier, so `carried_` is of one tile.
float* SplitAttention::merge(const TileItems& items) const {
  const AttentionTile& tile = plan_.tiles[items.begin->tile];
  const bool begun_before = items.begin->partition != partitions_of(plan_.call, tile).first;
  float* state = begun_before ? carried_ : items.begin->state;
  for (const Item* item = begun_before ? items.begin : items.begin + 1; item < items.end; ++item) {
    plan_.kernels->merge(plan_.call, tile, item->state, state);
  }
  return state;
}

void SplitAttention::finish() {
  const bool last_is_cut = at_.tile == items_.back().tile;
  float* kept = nullptr;
  for_each_item(pool_, std::ssize(tiles_), [&](std::int64_t t, int) {
    const TileItems& items = tiles_[static_cast<std::size_t>(t)];
    float* state = merge(items);
    if (last_is_cut && t + 1 == std::ssize(tiles_)) {
      kept = state;
    } else {
      plan_.kernels->finish(plan_.call, plan_.tiles[items.begin->tile], state);
    }
  });
  // Not before all are done: the first tile may just have been using it.
  if (kept != nullptr && kept != carried_) std::copy_n(kept, floats_of(items_.back().tile), carried_);
}

}  // namespace chorus
