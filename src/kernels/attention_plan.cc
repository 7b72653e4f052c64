#include "kernels/attention_plan.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {
namespace {

const AttentionKernels& kernels_of(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return attention_kernels_scalar();
    case Isa::avx2_f32:
      return attention_kernels_avx2();
    case Isa::avx512_bf16:
    case Isa::amx_bf16:
      return attention_kernels_avx512();
    case Isa::cuda_sm90:
      break;
  }
  return attention_kernels_scalar();
}

AttentionCall make_call(const KvCacheLayer& cache, const AttentionParams& params) {
  const KvLayout& layout = cache.layout;
  AttentionCall call;
  call.cache = cache.data;
  call.block_bytes = layout.block_bytes();
  call.head_bytes = layout.head_bytes();
  call.dtype = layout.dtype;
  call.head_dim = layout.head_dim;
  call.head_dim_padded = (layout.head_dim + 15) / 16 * 16;
  call.block_size = layout.block_size;
  call.group = params.heads / layout.kv_heads;
  call.window = params.window;
  call.scale = params.scale;
  call.softcap = params.softcap;
  call.sinks = params.sinks;
  return call;
}

std::int64_t tiles_of(const AttentionCall& call, const AttentionSequence& sequence, int lanes_max) {
  return (std::int64_t{sequence.count} * call.group + lanes_max - 1) / lanes_max;
}

// Later rows see more keys, so a sequence's tiles come last rows first: the long ones are not left for the end.
std::int64_t list_tiles(const AttentionCall& call, std::span<const AttentionSequence> sequences, int kv_heads,
                        int lanes_max, AttentionTile* tiles) {
  std::int64_t count = 0;
  for (const AttentionSequence& sequence : sequences) {
    const std::int32_t lanes = sequence.count * call.group;
    for (std::int64_t i = tiles_of(call, sequence, lanes_max) - 1; i >= 0; --i) {
      const auto lane = static_cast<std::int32_t>(i * lanes_max);
      for (std::int32_t head = 0; head < kv_heads; ++head) {
        tiles[count++] = {sequence.block_table.data(),      sequence.row, sequence.start, head, lane,
                          std::min(lanes_max, lanes - lane)};
      }
    }
  }
  return count;
}

AttentionWorkspace take_workspace(Scratch& scratch, const AttentionCall& call, int lanes_max) {
  const std::int64_t state = std::int64_t{lanes_max} * (attention_state_values + call.head_dim_padded);
  return {scratch.take_array<float>(std::int64_t{lanes_max} * call.head_dim),
          scratch.take_array<float>(attention_weights_floats), scratch.take_array<float>(state),
          scratch.take_array<float>(state)};
}

}  // namespace

void check_layout(const KvCacheLayer& cache) {
  const KvLayout& layout = cache.layout;
  CHECK(layout.kv_heads > 0 && layout.head_dim > 0, "kv_heads {}, head_dim {}", layout.kv_heads, layout.head_dim);
  CHECK(layout.block_size > 0 && layout.block_size % 16 == 0, "KV block size {} is no multiple of 16",
        layout.block_size);
  const KvShare& share = cache.share;
  CHECK(share.index >= 0 && share.index < share.count, "share {} of {}", share.index, share.count);
  CHECK(share.count == 1 || attention_partition_keys % layout.block_size == 0,
        "KV blocks of {} tokens are cut by partitions of {}", layout.block_size, attention_partition_keys);
}

void check_sequence(const KvLayout& layout, const AttentionSequence& sequence) {
  const auto positions = static_cast<std::int64_t>(sequence.block_table.size()) * layout.block_size;
  CHECK(sequence.start >= 0 && std::int64_t{sequence.start} + sequence.count <= positions,
        "positions [{}, +{}) in {} blocks of {}", sequence.start, sequence.count, sequence.block_table.size(),
        layout.block_size);
}

AttentionSpan partitions_of(const AttentionCall& call, const AttentionTile& tile) {
  const std::int32_t first_position = tile.start + tile.lane / call.group;
  const std::int32_t last_position = tile.start + (tile.lane + tile.lanes - 1) / call.group;
  const std::int32_t first_key = call.window > 0 ? std::max(0, first_position + 1 - call.window) : 0;
  return {first_key / attention_partition_keys, last_position / attention_partition_keys + 1};
}

AttentionPlan plan_attention(ThreadPool& pool, Scratch& scratch, Isa isa, const KvCacheLayer& cache,
                             std::span<const AttentionSequence> sequences, const AttentionParams& params,
                             const float* q, std::int64_t ldq, float* out, std::int64_t ldo) {
  check_layout(cache);
  CHECK(params.heads > 0 && params.heads % cache.layout.kv_heads == 0, "{} query heads, {} KV heads", params.heads,
        cache.layout.kv_heads);
  AttentionPlan plan;
  plan.kernels = &kernels_of(isa);
  plan.call = make_call(cache, params);
  plan.call.q = q;
  plan.call.ldq = ldq;
  plan.call.out = out;
  plan.call.ldo = ldo;

  const int lanes_max = plan.kernels->lanes_max;
  std::int64_t tile_count = 0;
  for (const AttentionSequence& sequence : sequences) {
    check_sequence(cache.layout, sequence);
    tile_count += tiles_of(plan.call, sequence, lanes_max) * cache.layout.kv_heads;
  }
  auto* tiles = scratch.take_array<AttentionTile>(tile_count);
  list_tiles(plan.call, sequences, cache.layout.kv_heads, lanes_max, tiles);
  plan.tiles = {tiles, static_cast<std::size_t>(tile_count)};
  auto* work = scratch.take_array<AttentionWorkspace>(pool.size());
  for (int thread = 0; thread < pool.size(); ++thread) work[thread] = take_workspace(scratch, plan.call, lanes_max);
  plan.work = {work, static_cast<std::size_t>(pool.size())};
  return plan;
}

}  // namespace chorus
