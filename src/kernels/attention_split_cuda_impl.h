// Device code of a decode: the attention of sequences of one row each, split by partition, and the merge. Private to
// attention_cuda*.
//
// A block has one KV head of one sequence, and one partition; its 16 lanes are the head's queries. Keys go by in chunks
// of a step for each of its four warps. The order of the online softmax is that of a prefill, but what does not wait
// for an earlier step is computed by all warps at once:
//   a. each warp computes the scores of its step and the largest of each row;
//   b. with those of the steps before, each warp knows the largest so far, so its weights and its factor of the state;
//   c. each warp walks the four steps in order, over its part of the dimensions of the values.
#pragma once

#include "kernels/attention_cuda_impl.h"

namespace chorus::cuda::inline SIMT_MEANING {

using simt::Floats;

// States of a split: [sequence][kv_head][partition][lane of 16][4 + padded head_dim]: top, sum,
// nothing, nothing, values.
inline constexpr int state_header = 4;
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
    if (Block::dimension(0) == 0) *reinterpret_cast<Floats<2>*>(out) = {state.top[r], state.sum[r]};
    SIMT_UNROLL
    for (int i = 0; i < Block::fragments; ++i) {
      *reinterpret_cast<Floats<2>*>(out + state_header + Block::dimension(i)) = {state.values[i][2 * r],
                                                                                 state.values[i][2 * r + 1]};
    }
  }
}

// Geometry and shared memory. buffers: chunks of keys, and of values, that the block has room for.
template <int dimensions, bool exact, int buffer_count, int blocks_of_a_processor>
struct SplitBlock : AttentionBlock<dimensions, exact, 1, 4, blocks_of_a_processor> {
  using AttentionBlock<dimensions, exact, 1, 4, blocks_of_a_processor>::AttentionBlock;
  static constexpr int warps = 4, buffers = buffer_count;
  static constexpr int chunk_keys = warps * attention_step, chunk_elements = chunk_keys * dimensions;
  static constexpr int key_bytes = buffers * chunk_elements * 2;  // and as many of values
  static constexpr int weights_at = 2 * key_bytes;                // [step][16-key half][lane] fragments of mma_bf16
  static constexpr int rows_at = weights_at + warps * 2 * simt::warp_lanes * 16;  // [what of RowsOfSteps][step][row]
  static constexpr int rows_count = warps * attention_warp_rows;
  static constexpr int numbers_at = rows_at + 3 * rows_count * 4;
  static constexpr int numbers_count = attention_partition_keys / 16;
  static constexpr int shared_bytes = numbers_at + numbers_count * 4;
  static_assert(shared_bytes <= attention_shared_bytes_max);
};

using Fragment = simt::Bytes16;  // a thread's part of the left factor of mma_bf16

// A block's work on its partition.
template <typename Block>
struct Split {
  const CudaAttention& call;
  const Block& block;
  int first_step, begin, end;  // steps of the partition, and of them [begin, end) that the row sees
  KeySpan keys;
  Shared<Bfloat16> memory = simt::shared<Bfloat16>(0, 2 * Block::key_bytes / 2);
  Shared<Fragment> weights = simt::shared<Fragment>(Block::weights_at, Block::warps * 2 * simt::warp_lanes);
  Shared<float> tops = simt::shared<float>(Block::rows_at, Block::rows_count);
  Shared<float> factors = simt::shared<float>(Block::rows_at + Block::rows_count * 4, Block::rows_count);
  Shared<float> sums = simt::shared<float>(Block::rows_at + 2 * Block::rows_count * 4, Block::rows_count);
  Shared<std::int32_t> numbers = simt::shared<std::int32_t>(Block::numbers_at, Block::numbers_count);

  SIMT_DEVICE bool has(int step) const { return step >= begin && step < end; }
  SIMT_DEVICE static int row(int r) { return simt::lane() / 4 + 8 * r; }
  SIMT_DEVICE static int buffer(int chunk) { return chunk % Block::buffers * Block::chunk_elements; }
  SIMT_DEVICE static int values(int chunk) { return Block::key_bytes / 2 + buffer(chunk); }

  // The numbers of the partition's blocks of the KV memory, 16 keys at a time.
  SIMT_DEVICE void read_numbers() const {
    if (simt::thread() < Block::numbers_count) {
      const int first = first_step * attention_step + simt::thread() * 16;
      const bool any = first < keys.last && first + 16 > keys.first;
      numbers[simt::thread()] = any ? block.table[first >> call.block_size_log2] : 0;
    }
    simt::sync_block();
  }

  // Copies the keys (part 0) or values (part 1) of a chunk; zeros for those that the row does not see. One group.
  SIMT_DEVICE void load(int part, int chunk) const {
    constexpr int pieces = Block::head_dim / 8, rows = Block::threads / pieces;  // keys of one round of the threads
    const int own_key = simt::thread() / pieces, piece = simt::thread() % pieces, dim = block.stored_dim();
    const bool in_head = Block::is_exact || piece * 8 < dim;
    const int head_elements = call.block_size * dim, block_elements = head_elements * 2 * call.kv_heads;
    const int of_piece = (2 * block.kv_head + part) * head_elements + piece * 8;
    const Bfloat16* from = call.cache + of_piece;
    const int to = part == 0 ? buffer(chunk) : values(chunk);
    SIMT_UNROLL
    for (int i = 0; i < Block::chunk_keys / rows; ++i) {
      const int in_chunk = i * rows + own_key, in_partition = chunk * Block::chunk_keys + in_chunk;
      const int key = first_step * attention_step + in_partition;
      const std::int64_t at = static_cast<std::int64_t>(numbers[in_partition / 16]) * block_elements;
      const int of_key = (key & (call.block_size - 1)) * dim;
      const Bfloat16* row = from + at + of_key;
      const bool seen = in_head && key >= keys.first && key < keys.last;
      simt::copy_async16(memory, to + key_chunk<Block::head_dim>(in_chunk, piece), row, seen);
    }
    simt::commit_copies();
  }
  SIMT_DEVICE bool any_of(int chunk) const {
    const int first = first_step + chunk * Block::warps;
    return first < end && first + Block::warps > begin;
  }
  SIMT_DEVICE void load_if_any(int part, int chunk) const {
    if (any_of(chunk)) return load(part, chunk);
    simt::commit_copies();  // an empty group: groups are counted
  }

  // a. Of the warp's step of a chunk.
  SIMT_DEVICE void score(const std::uint32_t (&q)[Block::head_dim / 16][4], int chunk,
                         float (&scores)[attention_step / 8][4]) const {
    const int step = first_step + chunk * Block::warps + simt::warp(), first = step * attention_step;
    const KeySpan seen = {keys.first - first, keys.last - first};
    const bool masked = seen.first > 0 || seen.last < attention_step;
    score_step<Block::head_dim>(q, memory, buffer(chunk) + simt::warp() * attention_step * Block::head_dim, scores);
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      const float top = has(step) ? scale_scores(call.scale, seen, masked, r, scores) : minus_infinity();
      if (simt::lane() % 4 == 0) tops[simt::warp() * attention_warp_rows + row(r)] = top;
    }
  }

  // b. `top` goes from the largest score before the chunk to the largest up to its end.
  SIMT_DEVICE void weigh(float (&scores)[attention_step / 8][4], float (&top)[2]) const {
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      float before = 0, largest = 0;
      SIMT_UNROLL
      for (int w = 0; w < Block::warps; ++w) {
        const float so_far = simt::larger(top[r], tops[w * attention_warp_rows + row(r)]);
        if (w == simt::warp()) before = top[r], largest = so_far;
        top[r] = so_far;
      }
      const float shift = shift_of(largest), sum = weigh_scores(shift, r, scores);
      if (simt::lane() % 4 == 0) {
        factors[simt::warp() * attention_warp_rows + row(r)] = simt::exponential_below(before - shift);
        sums[simt::warp() * attention_warp_rows + row(r)] = sum;
      }
    }
    SIMT_UNROLL
    for (int k = 0; k < 2; ++k) {
      Fragment packed;
      pack_weights(scores, k, packed.words);
      weights[(simt::warp() * 2 + k) * simt::warp_lanes + simt::lane()] = packed;
    }
  }

  // c.
  SIMT_DEVICE void add(int chunk, typename Block::State& state) const {
    SIMT_UNROLL
    for (int w = 0; w < Block::warps; ++w) {
      if (!has(first_step + chunk * Block::warps + w)) continue;
      SIMT_UNROLL
      for (int r = 0; r < 2; ++r) {
        const int at = w * attention_warp_rows + row(r);
        state.scale(r, factors[at]);
        state.sum[r] += sums[at];
      }
      SIMT_UNROLL
      for (int k = 0; k < 2; ++k) {
        const Fragment packed = weights[(w * 2 + k) * simt::warp_lanes + simt::lane()];
        add_values<Block>(packed.words, k, memory, values(chunk) + w * attention_step * Block::head_dim, state);
      }
    }
  }

  // A chunk's keys are replaced when its scores are there, its values when they are added.
  SIMT_DEVICE void walk(typename Block::State& state) const {
    constexpr int pending = 2 * Block::buffers - 1;
    int chunk = (begin - first_step) / Block::warps;
    SIMT_UNROLL
    for (int i = 0; i < Block::buffers; ++i) {
      load_if_any(0, chunk + i);
      load_if_any(1, chunk + i);
    }
    std::uint32_t q[Block::head_dim / 16][4];
    load_query<0>(call, block, q);
    load_query<1>(call, block, q);
    for (; any_of(chunk); ++chunk) {
      float scores[attention_step / 8][4];
      simt::wait_copies<pending>();
      simt::sync_block();
      score(q, chunk, scores);
      simt::sync_block();
      load_if_any(0, chunk + Block::buffers);
      weigh(scores, state.top);
      simt::wait_copies<pending>();
      simt::sync_block();
      add(chunk, state);
      simt::sync_block();
      load_if_any(1, chunk + Block::buffers);
    }
    simt::wait_copies<0>();
  }
};

// Blocks: x: KV heads, y: partitions, z: sequences.
template <typename Block>
SIMT_KERNEL_OF(Block::threads, Block::blocks)
attention_partitions(CudaAttention call, int partitions) {
  simt::in_order();
  const Block block(call, simt::block_x(), simt::block_z());
  const KeySpan keys = block.keys_of_block(call.window);
  const int first = simt::block_y() * partition_steps;
  const int begin = keys.first / attention_step > first ? keys.first / attention_step : first;
  const int last = (keys.last + attention_step - 1) / attention_step;
  const int end = last < first + partition_steps ? last : first + partition_steps;
  if (block.empty() || begin >= end) return;
  const Split<Block> split{call, block, first, begin, end, keys};
  split.read_numbers();
  typename Block::State state;
  state.clear();
  split.walk(state);
  store_state(block, state,
              state_of<Block::head_dim>(call, partitions, simt::block_z(), simt::block_x(), simt::block_y()));
}

// A warp: one query head of one sequence (z); a thread merges four dimensions. States are read `together` at a time,
// before the first of them is needed. Blocks: x: merge_heads query heads each.
inline constexpr int merge_heads = 4;
template <int head_dim, bool exact>
SIMT_KERNEL_OF(merge_heads* simt::warp_lanes, 8)
attention_merge(CudaAttention call, int partitions) {
  simt::in_order();
  constexpr int together = 5;
  const int head = simt::block_x() * merge_heads + simt::warp(), column = simt::lane() * 4;
  if (head >= call.heads || column >= head_dim) return;
  const int group = call.heads / call.kv_heads, lane = head % group;
  const AttentionBlock<head_dim, exact, 1, 1, 1> block(call, head / group, simt::block_z());
  if (block.empty()) return;
  const KeySpan keys = block.keys_of_block(call.window);
  const int last = (keys.last + attention_partition_keys - 1) / attention_partition_keys;
  float top = 0, sum = 0;
  Floats<4> value = {};
  for (int p = keys.first / attention_partition_keys; p < last; p += together) {
    Floats<2> later[together];
    Floats<4> later_value[together];
    SIMT_UNROLL
    for (int i = 0; i < together; ++i) {
      const int partition = p + i < last ? p + i : last - 1;
      const float* from = state_of<head_dim>(call, partitions, simt::block_z(), block.kv_head, partition) +
                          lane * (state_header + head_dim);
      later[i] = *reinterpret_cast<const Floats<2>*>(from);
      later_value[i] = *reinterpret_cast<const Floats<4>*>(from + state_header + column);
    }
    SIMT_UNROLL
    for (int i = 0; i < together; ++i) {
      if (p + i >= last || later[i].at[1] == 0) continue;
      const bool first = sum == 0;
      const MergeWeights weights = first ? MergeWeights{later[i].at[0], 0, 1} : merge_weights(top, later[i].at[0]);
      top = weights.top;
      sum = first ? later[i].at[1] : merged(weights, sum, later[i].at[1]);
      SIMT_UNROLL
      for (int j = 0; j < 4; ++j) {
        value.at[j] = first ? later_value[i].at[j] : merged(weights, value.at[j], later_value[i].at[j]);
      }
    }
  }
  if (!exact && column >= call.head_dim) return;
  Bfloat16* out = call.out + block.element_of_lane(lane, call.ldo) + column;
  SIMT_UNROLL
  for (int j = 0; j < 4; j += 2) {
    *reinterpret_cast<std::uint32_t*>(out + j) = simt::pack_bfloat16(value.at[j] / sum, value.at[j + 1] / sum);
  }
}

inline int attention_partitions_of(const CudaAttention& call) {
  return (call.positions_max + attention_partition_keys - 1) / attention_partition_keys;
}

template <typename Block, typename Launch>
void launch_attention_split(Launch& launch, const CudaAttention& call) {
  const int partitions = attention_partitions_of(call);
  launch(simt::Shape{.x = call.kv_heads,
                     .y = partitions,
                     .z = call.sequence_count,
                     .threads = Block::threads,
                     .shared_bytes = Block::shared_bytes,
                     .overlaps = true},
         attention_partitions<Block>, call, partitions);
  launch(simt::Shape{.x = (call.heads + merge_heads - 1) / merge_heads,
                     .z = call.sequence_count,
                     .threads = merge_heads * simt::warp_lanes,
                     .overlaps = true},
         attention_merge<Block::head_dim, Block::is_exact>, call, partitions);
}

// A block that has a processor to itself loads all its keys at once; where blocks share one, each has half the buffers.
template <int head_dim, bool exact, typename Launch>
void launch_attention_of(Launch& launch, const CudaAttention& call, int processors) {
  if (call.rows_max > 1) return launch_attention_prefill<head_dim, exact>(launch, call, processors);
  if (call.sequence_count * call.kv_heads * attention_partitions_of(call) > processors) {
    return launch_attention_split<SplitBlock<head_dim, exact, 1, 3>>(launch, call);
  }
  launch_attention_split<SplitBlock<head_dim, exact, 2, 1>>(launch, call);
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
