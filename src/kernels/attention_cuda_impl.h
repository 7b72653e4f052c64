// Device code of attention_cuda.h, for nvcc and for the emulation. A lane is one (query row, query head), as in
// attention_tile.h; a warp has 16 lanes of one KV head, the rows of its matrix products. In a prefill the warps of a
// block have lanes of their own; in a decode, where there are few, they have the same lanes, compute the same weights
// each, and part the dimensions of the values: the sums are the same. Private to attention_cuda*.
#pragma once

#include "base/numerics.h"
#include "kernels/attention_cuda.h"
#include "simt/simt.h"

namespace chorus::cuda::inline SIMT_MEANING {

using simt::Bfloat16;
using simt::Shared;

inline constexpr int attention_step = 32;  // keys
inline constexpr int attention_warp_rows = 16;
inline constexpr int partition_steps = attention_partition_keys / attention_step;
static_assert(attention_partition_keys % attention_step == 0);

SIMT_DEVICE float minus_infinity() {
  return simt::float_of(0xff800000U);
}

// Softmax over some keys of the two rows that a thread has of its warp's 16 (its lane / 4, and that + 8). Fragment i of
// `values` has dimensions 8 i + 2 (lane % 4) and the next, of the warp's dimensions, of both.
template <int fragments>
struct AttentionState {
  float top[2], sum[2];
  float values[fragments][4];

  SIMT_DEVICE void clear() {
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      top[r] = minus_infinity();
      sum[r] = 0;
    }
    SIMT_UNROLL
    for (int i = 0; i < 4 * fragments; ++i) values[i / 4][i % 4] = 0;
  }
  SIMT_DEVICE void scale(int r, float by) {
    sum[r] = sum[r] * by;
    SIMT_UNROLL
    for (int i = 0; i < fragments; ++i) {
      values[i][2 * r] = values[i][2 * r] * by;
      values[i][2 * r + 1] = values[i][2 * r + 1] * by;
    }
  }
};

// attention_impl.h's tile_merge for one number of a state: weights of the earlier and the later part.
struct MergeWeights {
  float top, mine, theirs;
};
SIMT_DEVICE MergeWeights merge_weights(float top, float later_top) {
  const float both = simt::maximum(top, later_top);
  return {both, simt::exponential(top - both), simt::exponential(later_top - both)};
}
SIMT_DEVICE float merged(const MergeWeights& weights, float mine, float theirs) {
  return simt::multiply_add(theirs, weights.theirs, mine * weights.mine);
}

// state = state merged with `later`, row by row.
template <int fragments>
SIMT_DEVICE void merge_state(AttentionState<fragments>& state, const AttentionState<fragments>& later) {
  SIMT_UNROLL
  for (int r = 0; r < 2; ++r) {
    if (later.sum[r] == 0) continue;
    const bool first = state.sum[r] == 0;
    const MergeWeights weights = first ? MergeWeights{later.top[r], 0, 1} : merge_weights(state.top[r], later.top[r]);
    state.top[r] = weights.top;
    state.sum[r] = first ? later.sum[r] : merged(weights, state.sum[r], later.sum[r]);
    SIMT_UNROLL
    for (int i = 0; i < fragments; ++i) {
      SIMT_UNROLL
      for (int j = 2 * r; j < 2 * r + 2; ++j) {
        state.values[i][j] = first ? later.values[i][j] : merged(weights, state.values[i][j], later.values[i][j]);
      }
    }
  }
}

// Keys [first, last) that a row sees; none where first >= last.
struct KeySpan {
  int first, last;
};

// What a block works on.
// blocks: of a processor, as registers and shared memory allow. A block computes with `dimensions`; heads of fewer are
// filled up with zeros, which changes no sum, unless it is exact.
template <int dimensions, bool exact, int warps_over_lanes, int warps_over_dimensions, int stage_count,
          int blocks_of_a_processor>
struct AttentionBlock {
  static constexpr int head_dim = dimensions, over_dimensions = warps_over_dimensions, stages = stage_count;
  static constexpr int blocks = blocks_of_a_processor;
  static constexpr bool is_exact = exact;
  static constexpr int threads = warps_over_lanes * warps_over_dimensions * simt::warp_lanes;
  static constexpr int lanes = warps_over_lanes * attention_warp_rows;
  static constexpr int fragments = head_dim / 8 / over_dimensions;  // of values, of a warp
  static_assert(fragments % 2 == 0);
  using State = AttentionState<fragments>;
  static constexpr int stage_elements = 2 * attention_step * head_dim;  // K, then V
  static constexpr int shared_bytes = stages * stage_elements * 2;

  CudaSequence sequence;
  const std::int32_t* table;
  int kv_head, first_lane, group, own_dim;  // own_dim: of a head in memory

  SIMT_DEVICE AttentionBlock(const CudaAttention& call, int tile_and_head, int sequence_index)
      : sequence(call.sequences[sequence_index]),
        table(call.tables + sequence.table * call.table_stride),
        kv_head(tile_and_head % call.kv_heads),
        first_lane(tile_and_head / call.kv_heads * lanes),
        group(call.heads / call.kv_heads),
        own_dim(call.head_dim) {}

  SIMT_DEVICE int stored_dim() const { return exact ? head_dim : own_dim; }
  SIMT_DEVICE bool empty() const { return first_lane >= sequence.count * group; }
  // Lane r (0, 1) of this thread, counted in the sequence.
  SIMT_DEVICE int lane_of(int r) const {
    return first_lane + simt::warp() / over_dimensions * attention_warp_rows + simt::lane() / 4 + 8 * r;
  }
  // The warp's first dimension of the values, and of this thread in fragment i.
  SIMT_DEVICE static int first_dimension() { return simt::warp() % over_dimensions * fragments * 8; }
  SIMT_DEVICE static int dimension(int i) { return first_dimension() + 8 * i + simt::lane() % 4 * 2; }
  SIMT_DEVICE bool exists(int lane) const { return lane < sequence.count * group; }
  SIMT_DEVICE KeySpan keys_of_row(int row, int window) const {
    const int last = sequence.start + row + 1;
    return {window > 0 && last > window ? last - window : 0, last};
  }
  SIMT_DEVICE KeySpan keys_of_lane(int lane, int window) const {
    return exists(lane) ? keys_of_row(lane / group, window) : KeySpan{0, 0};
  }
  // That any lane of the block sees.
  SIMT_DEVICE KeySpan keys_of_block(int window) const {
    const int last_lane =
        first_lane + lanes < sequence.count * group ? first_lane + lanes - 1 : sequence.count * group - 1;
    return {keys_of_row(first_lane / group, window).first, keys_of_row(last_lane / group, window).last};
  }
  SIMT_DEVICE std::int64_t element_of_lane(int lane, std::int64_t stride) const {
    return (sequence.row + lane / group) * stride +
           static_cast<std::int64_t>(kv_head * group + lane % group) * stored_dim();
  }
};

// Index in a stage of 16 bytes of key `key` (K; V: attention_step + key).
template <int head_dim>
SIMT_DEVICE int key_chunk(int key, int chunk) {
  return key * head_dim + ((chunk ^ (key & 7)) << 3);
}

// Copies keys [step * 32, step * 32 + 32) and their values; zeros for those that no lane of the block sees.
template <typename Block>
SIMT_DEVICE void load_keys(const CudaAttention& call, const Block& block, KeySpan keys, int step,
                           Shared<Bfloat16> memory, int at) {
  constexpr int chunks = Block::head_dim / 8, rows = Block::threads / chunks;  // keys of one round of the threads
  const int key = simt::thread() / chunks, chunk = simt::thread() % chunks;
  const int dim = block.stored_dim();
  const bool in_head = Block::is_exact || chunk * 8 < dim;
  const std::int64_t head_elements = static_cast<std::int64_t>(call.block_size) * dim;
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {  // 16 keys lie in one block of the KV memory
    const int first = step * attention_step + half * 16;
    const bool any = first < keys.last && first + 16 > keys.first;
    const std::int64_t number = any ? block.table[first >> call.block_size_log2] : 0;
    const Bfloat16* k = call.cache + (number * call.kv_heads + block.kv_head) * 2 * head_elements +
                        ((first & (call.block_size - 1)) + key) * dim + chunk * 8;
    SIMT_UNROLL
    for (int row = 0; row < 16; row += rows) {
      if (key + row >= 16) break;
      const bool seen = in_head && first + key + row < keys.last && first + key + row >= keys.first;
      const int to = at + key_chunk<Block::head_dim>(half * 16 + key + row, chunk);
      const Bfloat16* from = k + static_cast<std::int64_t>(row) * dim;
      simt::copy_async16(memory, to, from, seen);
      simt::copy_async16(memory, to + attention_step * Block::head_dim, from + head_elements, seen);
    }
  }
}

// scores = q K^T of one step.
template <int head_dim>
SIMT_DEVICE void score_step(const std::uint32_t (&q)[head_dim / 16][4], Shared<Bfloat16> memory, int at,
                            float (&scores)[attention_step / 8][4]) {
  const int lane = simt::lane();
  SIMT_UNROLL
  for (int i = 0; i < attention_step / 2; ++i) scores[i / 4][i % 4] = 0;
  SIMT_UNROLL
  for (int d = 0; d < head_dim / 16; ++d) {
    SIMT_UNROLL
    for (int n = 0; n < attention_step / 16; ++n) {
      std::uint32_t k[4];
      const int key = 16 * n + lane / 16 * 8 + lane % 8;
      simt::load_matrix_x4(k, memory, at + key_chunk<head_dim>(key, 2 * d + lane / 8 % 2));
      const int even = 2 * n;
      simt::mma_bf16(scores[even], q[d], k[0], k[1]);
      simt::mma_bf16(scores[even + 1], q[d], k[2], k[3]);
    }
  }
}

// The thread's scores of row r become weights; the state is scaled to the new maximum. seen: the row's keys, counted
// from the step's first.
template <int fragments>
SIMT_DEVICE void weigh_step(float scale, KeySpan seen, int r, float (&scores)[attention_step / 8][4],
                            AttentionState<fragments>& state) {
  const bool masked = simt::any_of_warp(seen.first > 0 || seen.last < attention_step);
  float top = state.top[r];
  SIMT_UNROLL
  for (int i = 0; i < attention_step / 4; ++i) {
    const int key = i / 2 * 8 + simt::lane() % 4 * 2 + i % 2;
    float& score = scores[i / 2][2 * r + i % 2];
    score = score * scale;
    if (masked) score = key >= seen.first && key < seen.last ? score : minus_infinity();
    top = simt::maximum(top, score);
  }
  top = simt::maximum(top, simt::shuffle_xor(top, 1));
  top = simt::maximum(top, simt::shuffle_xor(top, 2));
  const float shift = top == minus_infinity() ? 0.0F : top;  // no key so far: all weights are e^-inf
  const float factor = simt::exponential(state.top[r] - shift);
  float sum = 0;
  SIMT_UNROLL
  for (int i = 0; i < attention_step / 4; ++i) {
    float& score = scores[i / 2][2 * r + i % 2];
    score = simt::exponential(score - shift);
    sum += score;
  }
  sum += simt::shuffle_xor(sum, 1);
  sum += simt::shuffle_xor(sum, 2);
  if (simt::any_of_warp(factor != 1.0F)) state.scale(r, factor);
  state.sum[r] += sum;
  state.top[r] = top;
}

// state += weights V of one step.
template <typename Block>
SIMT_DEVICE void add_values(const float (&weights)[attention_step / 8][4], Shared<Bfloat16> memory, int at,
                            typename Block::State& state) {
  const int lane = simt::lane(), first_chunk = Block::first_dimension() / 8;
  SIMT_UNROLL
  for (int k = 0; k < attention_step / 16; ++k) {
    const int even = 2 * k;
    const std::uint32_t a[4] = {simt::pack_bfloat16(weights[even][0], weights[even][1]),
                                simt::pack_bfloat16(weights[even][2], weights[even][3]),
                                simt::pack_bfloat16(weights[even + 1][0], weights[even + 1][1]),
                                simt::pack_bfloat16(weights[even + 1][2], weights[even + 1][3])};
    SIMT_UNROLL
    for (int d = 0; d < Block::fragments / 2; ++d) {
      std::uint32_t v[4];
      const int key = attention_step + 16 * k + lane % 16, chunk = first_chunk + 2 * d + lane / 16;
      simt::load_matrix_transposed_x4(v, memory, at + key_chunk<Block::head_dim>(key, chunk));
      simt::mma_bf16(state.values[2 * d], a, v[0], v[1]);
      simt::mma_bf16(state.values[2 * d + 1], a, v[2], v[3]);
    }
  }
}

// Row r (0: lane / 4, 1: that + 8) of q in the fragments of mma_bf16; zeros for lanes that do not exist.
template <int r, typename Block>
SIMT_DEVICE void load_query(const CudaAttention& call, const Block& block,
                            std::uint32_t (&q)[Block::head_dim / 16][4]) {
  const int lane = block.lane_of(r);
  const bool exists = block.exists(lane);
  const Bfloat16* row = (exists ? call.q + block.element_of_lane(lane, call.ldq) : call.q) + simt::lane() % 4 * 2;
  SIMT_UNROLL
  for (int i = 0; i < Block::head_dim / 8; ++i) {
    const int column = 8 * i;
    const bool there = Block::is_exact || column < block.stored_dim();
    const std::uint32_t pair = *reinterpret_cast<const std::uint32_t*>(there ? row + column : row);
    q[i / 2][r + i % 2 * 2] = exists && there ? pair : 0U;
  }
}

template <typename Block>
SIMT_DEVICE void store_result(const CudaAttention& call, const Block& block, const typename Block::State& state) {
  SIMT_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int lane = block.lane_of(r);
    if (!block.exists(lane)) continue;
    Bfloat16* out = call.out + block.element_of_lane(lane, call.ldo);
    SIMT_UNROLL
    for (int i = 0; i < Block::fragments; ++i) {
      if (!Block::is_exact && Block::dimension(i) >= block.stored_dim()) break;
      *reinterpret_cast<std::uint32_t*>(out + Block::dimension(i)) =
          simt::pack_bfloat16(state.values[i][2 * r] / state.sum[r], state.values[i][2 * r + 1] / state.sum[r]);
    }
  }
}

// States of a split: [sequence][kv_head][partition][lane of 16][2 + padded head_dim]: top, sum, values.
inline constexpr int state_header = 2;
template <int head_dim>
SIMT_DEVICE float* state_of(const CudaAttention& call, int partitions, int sequence, int kv_head, int partition) {
  const std::int64_t index = (static_cast<std::int64_t>(sequence) * call.kv_heads + kv_head) * partitions + partition;
  return call.states + index * attention_warp_rows * (state_header + head_dim);
}

template <typename Block>
SIMT_DEVICE void store_state(const Block& block, const typename Block::State& state, float* to) {
  SIMT_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int lane = block.lane_of(r);
    if (!block.exists(lane)) continue;
    float* out = to + lane * (state_header + Block::head_dim);
    if (Block::dimension(0) == 0) {
      out[0] = state.top[r];
      out[1] = state.sum[r];
    }
    SIMT_UNROLL
    for (int i = 0; i < 2 * Block::fragments; ++i) {
      out[state_header + Block::dimension(i / 2) + i % 2] = state.values[i / 2][2 * r + i % 2];
    }
  }
}

// Walks the keys of steps [begin, end), partition by partition; ended(state) after each.
template <typename Block, typename F>
SIMT_DEVICE void walk_keys(const CudaAttention& call, const Block& block, int begin, int end, F ended) {
  const Shared<Bfloat16> memory = simt::shared<Bfloat16>(0, Block::stages * Block::stage_elements);
  const KeySpan keys = block.keys_of_block(call.window);
  const auto load = [&](int step) {
    if (step < end) {
      load_keys(call, block, keys, step, memory, (step - begin) % Block::stages * Block::stage_elements);
    }
    simt::commit_copies();
  };
  std::uint32_t q[Block::head_dim / 16][4];
  load_query<0>(call, block, q);
  load_query<1>(call, block, q);
  const KeySpan seen[2] = {block.keys_of_lane(block.lane_of(0), call.window),
                           block.keys_of_lane(block.lane_of(1), call.window)};
  typename Block::State state;
  state.clear();
  SIMT_UNROLL
  for (int stage = 0; stage < Block::stages - 1; ++stage) load(begin + stage);
  for (int step = begin; step < end; ++step) {
    simt::wait_copies<Block::stages - 2>();
    simt::sync_block();
    load(step + Block::stages - 1);
    const int at = (step - begin) % Block::stages * Block::stage_elements, first = step * attention_step;
    float scores[attention_step / 8][4];
    score_step<Block::head_dim>(q, memory, at, scores);
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      weigh_step(call.scale, {seen[r].first - first, seen[r].last - first}, r, scores, state);
    }
    add_values<Block>(scores, memory, at, state);
    if ((step + 1) % partition_steps == 0 || step + 1 == end) {
      ended(state);
      state.clear();
    }
  }
  simt::wait_copies<0>();
}

// A block: some lanes of one KV head of one sequence, all keys. Blocks: x: KV heads x tiles of lanes, z: sequences.
template <typename Block>
SIMT_KERNEL_OF(Block::threads, Block::blocks)
attention_rows(CudaAttention call) {
  const Block block(call, simt::block_x(), simt::block_z());
  if (block.empty()) return;
  const KeySpan keys = block.keys_of_block(call.window);
  typename Block::State total;
  total.clear();
  walk_keys(call, block, keys.first / attention_step, (keys.last + attention_step - 1) / attention_step,
            [&](const typename Block::State& state) { merge_state(total, state); });
  store_result(call, block, total);
}

// A block: one KV head of one sequence of one row, one partition (y).
template <typename Block>
SIMT_KERNEL_OF(Block::threads, Block::blocks)
attention_partitions(CudaAttention call, int partitions) {
  const Block block(call, simt::block_x(), simt::block_z());
  const KeySpan keys = block.keys_of_block(call.window);
  const int first = simt::block_y() * partition_steps;
  const int begin = keys.first / attention_step > first ? keys.first / attention_step : first;
  const int last = (keys.last + attention_step - 1) / attention_step;
  const int end = last < first + partition_steps ? last : first + partition_steps;
  if (block.empty() || begin >= end) return;
  float* to = state_of<Block::head_dim>(call, partitions, simt::block_z(), simt::block_x(), simt::block_y());
  walk_keys(call, block, begin, end, [&](const typename Block::State& state) { store_state(block, state, to); });
}

// A block: one query head (x) of one sequence (z); a thread merges one dimension. States are read `together` at a time,
// before the first of them is needed.
template <int head_dim, bool exact>
SIMT_KERNEL_OF(head_dim, 1)
attention_merge(CudaAttention call, int partitions) {
  constexpr int together = 8;
  const int group = call.heads / call.kv_heads, lane = simt::block_x() % group;
  const AttentionBlock<head_dim, exact, 1, 1, 1, 1> block(call, simt::block_x() / group, simt::block_z());
  if (block.empty()) return;
  const KeySpan keys = block.keys_of_block(call.window);
  const int last = (keys.last + attention_partition_keys - 1) / attention_partition_keys;
  float top = 0, sum = 0, value = 0;
  for (int p = keys.first / attention_partition_keys; p < last; p += together) {
    float later_top[together], later_sum[together], later_value[together];
    SIMT_UNROLL
    for (int i = 0; i < together; ++i) {
      const int partition = p + i < last ? p + i : last - 1;
      const float* later = state_of<head_dim>(call, partitions, simt::block_z(), block.kv_head, partition) +
                           lane * (state_header + head_dim);
      later_top[i] = later[0];
      later_sum[i] = p + i < last ? later[1] : 0.0F;
      later_value[i] = later[state_header + simt::thread()];
    }
    SIMT_UNROLL
    for (int i = 0; i < together; ++i) {
      if (later_sum[i] == 0) continue;
      const bool first = sum == 0;
      const MergeWeights weights = first ? MergeWeights{later_top[i], 0, 1} : merge_weights(top, later_top[i]);
      top = weights.top;
      sum = first ? later_sum[i] : merged(weights, sum, later_sum[i]);
      value = first ? later_value[i] : merged(weights, value, later_value[i]);
    }
  }
  if (!exact && simt::thread() >= call.head_dim) return;
  call.out[block.element_of_lane(lane, call.ldo) + simt::thread()] = simt::to_bfloat16(value / sum);
}

inline int attention_partitions_of(const CudaAttention& call) {
  return (call.positions_max + attention_partition_keys - 1) / attention_partition_keys;
}

template <typename Block, typename Launch>
void launch_attention_rows(Launch& launch, const CudaAttention& call) {
  const int lanes = call.rows_max * (call.heads / call.kv_heads);
  launch(simt::Shape{.x = (lanes + Block::lanes - 1) / Block::lanes * call.kv_heads,
                     .z = call.sequence_count,
                     .threads = Block::threads,
                     .shared_bytes = Block::shared_bytes},
         attention_rows<Block>, call);
}

template <typename Block, typename Launch>
void launch_attention_split(Launch& launch, const CudaAttention& call) {
  const int partitions = attention_partitions_of(call);
  launch(simt::Shape{.x = call.kv_heads,
                     .y = partitions,
                     .z = call.sequence_count,
                     .threads = Block::threads,
                     .shared_bytes = Block::shared_bytes},
         attention_partitions<Block>, call, partitions);
  launch(simt::Shape{.x = call.heads, .z = call.sequence_count, .threads = Block::head_dim},
         attention_merge<Block::head_dim, Block::is_exact>, call, partitions);
}

// Many blocks have a warp each: what they repeat for each other would cost more than it hides.
template <int head_dim, bool exact, typename Launch>
void launch_attention_of(Launch& launch, const CudaAttention& call, int processors) {
  constexpr int many = 8;  // blocks of a processor
  if (call.rows_max > 1) return launch_attention_rows<AttentionBlock<head_dim, exact, 8, 1, 3, 1>>(launch, call);
  if (call.sequence_count * call.kv_heads * attention_partitions_of(call) >= many * processors) {
    return launch_attention_split<AttentionBlock<head_dim, exact, 1, 1, 3, 4>>(launch, call);
  }
  launch_attention_split<AttentionBlock<head_dim, exact, 1, 4, 3, 4>>(launch, call);
}

template <typename Launch>
void launch_attention(Launch& launch, CudaAttention call, int processors) {
  if (call.sequence_count == 0) return;
  call.block_size_log2 = 0;
  while (1 << call.block_size_log2 < call.block_size) ++call.block_size_log2;
  if (call.head_dim == 64) return launch_attention_of<64, true>(launch, call, processors);
  if (call.head_dim == 128) return launch_attention_of<128, true>(launch, call, processors);
  if (call.head_dim < 64) return launch_attention_of<64, false>(launch, call, processors);
  launch_attention_of<128, false>(launch, call, processors);
}

}  // namespace chorus::cuda::inline SIMT_MEANING
