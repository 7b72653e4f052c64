// Device code of attention_cuda.h, for nvcc and for the emulation: what prefill and decode share, and the prefill. A
// lane is one (query row, query head), as in attention_tile.h; a warp has 16 lanes of one KV head, the rows of its
// matrix products. The decode is attention_split_cuda_impl.h's. Private to attention_cuda*.
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
  const float both = simt::larger(top, later_top);
  return {both, simt::exponential_below(top - both), simt::exponential_below(later_top - both)};
}
SIMT_DEVICE float merged(const MergeWeights& weights, float mine, float theirs) {
  return simt::multiply_add(theirs, weights.theirs, mine * weights.mine);
}

// Keys [first, last) that a row sees; none where first >= last.
struct KeySpan {
  int first, last;
};

// Attention never asks for more shared memory than an A100 has: it has no smaller form for other GPUs.
inline constexpr int attention_shared_bytes_max = 163 * 1024;

// What a block works on. blocks_of_a_processor: as registers and shared memory allow. A block computes heads of
// `dimensions`; smaller heads (not `exact`) are filled up with zeros, which changes no sum.
template <int dimensions, bool exact, int warps_over_lanes, int warps_over_dimensions, int blocks_of_a_processor>
struct AttentionBlock {
  static constexpr int head_dim = dimensions, over_dimensions = warps_over_dimensions;
  static constexpr int blocks = blocks_of_a_processor;
  static constexpr bool is_exact = exact;
  static constexpr int threads = warps_over_lanes * warps_over_dimensions * simt::warp_lanes;
  static constexpr int lanes = warps_over_lanes * attention_warp_rows;
  static constexpr int fragments = head_dim / 8 / over_dimensions;  // of values, of a warp
  static_assert(fragments % 2 == 0);
  using State = AttentionState<fragments>;

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

// Index of 16 bytes of key (or value) `key` of some that lie one after another.
template <int head_dim>
SIMT_DEVICE int key_chunk(int key, int chunk) {
  return key * head_dim + ((chunk ^ (key & 7)) << 3);
}

// scores = q K^T of one step, whose keys lie at `at`.
template <int head_dim>
SIMT_DEVICE void score_step(const std::uint32_t (&q)[head_dim / 16][4], Shared<Bfloat16> memory, int at,
                            float (&scores)[attention_step / 8][4]) {
  const int lane = simt::lane();
  SIMT_UNROLL
  for (int i = 0; i < attention_step / 2; ++i) scores[i / 4][i % 4] = 0;
  const int row = at + key_chunk<head_dim>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  SIMT_UNROLL
  for (int d = 0; d < head_dim / 16; ++d) {
    SIMT_UNROLL
    for (int n = 0; n < attention_step / 16; ++n) {
      std::uint32_t k[4];
      simt::load_matrix_x4(k, memory, (row ^ 16 * d) + 16 * n * head_dim);  // chunk 2 d further
      const int even = 2 * n;
      simt::mma_bf16(scores[even], q[d], k[0], k[1]);
      simt::mma_bf16(scores[even + 1], q[d], k[2], k[3]);
    }
  }
}

// Scales the thread's scores of row r; returns the largest of the row, of all threads. seen: the row's keys, counted
// from the step's first; not looked at unless `masked`.
SIMT_DEVICE float scale_scores(float scale, KeySpan seen, bool masked, int r, float (&scores)[attention_step / 8][4]) {
  SIMT_UNROLL
  for (int i = 0; i < attention_step / 4; ++i) scores[i / 2][2 * r + i % 2] *= scale;
  if (masked) {
    SIMT_UNROLL
    for (int i = 0; i < attention_step / 4; ++i) {
      const int key = i / 2 * 8 + simt::lane() % 4 * 2 + i % 2;
      if (key < seen.first || key >= seen.last) scores[i / 2][2 * r + i % 2] = minus_infinity();
    }
  }
  float top = minus_infinity();
  SIMT_UNROLL
  for (int i = 0; i < attention_step / 4; ++i) top = simt::larger(top, scores[i / 2][2 * r + i % 2]);
  top = simt::larger(top, simt::shuffle_xor(top, 1));
  return simt::larger(top, simt::shuffle_xor(top, 2));
}

// What is subtracted from scores whose largest so far is `top`.
SIMT_DEVICE float shift_of(float top) {
  return top == minus_infinity() ? 0.0F : top;  // no key so far: all weights are e^-inf
}

// The thread's scores of row r become weights; returns the row's sum.
SIMT_DEVICE float weigh_scores(float shift, int r, float (&scores)[attention_step / 8][4]) {
  float sum = 0;
  SIMT_UNROLL
  for (int i = 0; i < attention_step / 4; ++i) {
    float& score = scores[i / 2][2 * r + i % 2];
    score = simt::exponential_below(score - shift);
    sum += score;
  }
  sum += simt::shuffle_xor(sum, 1);
  return sum + simt::shuffle_xor(sum, 2);
}

// Weights as the factor of mma_bf16 of keys [16 k, 16 k + 16).
SIMT_DEVICE void pack_weights(const float (&weights)[attention_step / 8][4], int k, std::uint32_t (&a)[4]) {
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float(&of)[4] = weights[2 * k + i / 2];
    const int row = i % 2 * 2;
    a[i] = simt::pack_bfloat16(of[row], of[row + 1]);
  }
}

// state += weights V of keys [16 k, 16 k + 16) of a step whose values lie at `at`.
template <typename Block>
SIMT_DEVICE void add_values(const std::uint32_t (&a)[4], int k, Shared<Bfloat16> memory, int at,
                            typename Block::State& state) {
  const int lane = simt::lane();
  const int row = at + key_chunk<Block::head_dim>(lane % 16, Block::first_dimension() / 8 + lane / 16);
  SIMT_UNROLL
  for (int d = 0; d < Block::fragments / 2; ++d) {
    std::uint32_t v[4];
    simt::load_matrix_transposed_x4(v, memory, (row ^ 16 * d) + 16 * k * Block::head_dim);  // chunk 2 d further
    simt::mma_bf16(state.values[2 * d], a, v[0], v[1]);
    simt::mma_bf16(state.values[2 * d + 1], a, v[2], v[3]);
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

// A prefill's block: a warp for 16 lanes each. Keys come two steps at a time.
template <int dimensions, bool exact, int warps>
struct RowsBlock : AttentionBlock<dimensions, exact, warps, 1, 1> {
  using AttentionBlock<dimensions, exact, warps, 1, 1>::AttentionBlock;
  using AttentionBlock<dimensions, exact, warps, 1, 1>::threads;
  static constexpr int stages = 2, stage_keys = 2 * attention_step;
  static constexpr int stage_elements = 2 * stage_keys * dimensions;  // keys, then values
  static constexpr int total_at = stages * stage_elements * 2;
  static constexpr int total_count = dimensions / 2 * threads;
  static constexpr int shared_bytes = total_at + total_count * 4;
  static_assert(shared_bytes <= attention_shared_bytes_max);
  static_assert(attention_partition_keys % stage_keys == 0);
};

// Copies the keys and values that a block of a prefill needs, a stage at a time; zeros for those that none of its lanes
// sees. The numbers of the blocks of KV memory are read a stage ahead of their use.
template <typename Block>
struct KeyLoader {
  static constexpr int pieces = Block::head_dim / 8,
                       rows = Block::threads / pieces;  // keys of one round of the threads
  static constexpr int rounds = (Block::stage_keys + rows - 1) / rows;

  const CudaAttention& call;
  const Block& block;
  KeySpan keys;
  Shared<Bfloat16> memory;
  std::int32_t numbers[rounds];  // of the next stage

  SIMT_DEVICE bool sees(int key) const { return key >= keys.first && key < keys.last; }
  SIMT_DEVICE static int own_key(int round) { return round * rows + simt::thread() / pieces; }
  SIMT_DEVICE void read_numbers(int stage) {
    SIMT_UNROLL
    for (int i = 0; i < rounds; ++i) {
      const int key = stage * Block::stage_keys + own_key(i);
      numbers[i] = sees(key) ? block.table[key >> call.block_size_log2] : 0;
    }
  }
  // One group of copies; none beyond the keys.
  SIMT_DEVICE void load(int stage) {
    const int piece = simt::thread() % pieces, dim = block.stored_dim(), head_elements = call.block_size * dim;
    const bool in_head = Block::is_exact || piece * 8 < dim;
    const int of_piece = 2 * block.kv_head * head_elements + piece * 8;
    const Bfloat16* first = call.cache + of_piece;
    const int at = stage % Block::stages * Block::stage_elements;
    SIMT_UNROLL
    for (int i = 0; i < rounds; ++i) {
      const int row = own_key(i), key = stage * Block::stage_keys + row;
      if (stage * Block::stage_keys >= keys.last || row >= Block::stage_keys) continue;
      const int block_elements = head_elements * 2 * call.kv_heads, of_key = (key & (call.block_size - 1)) * dim;
      const Bfloat16* from = first + static_cast<std::int64_t>(numbers[i]) * block_elements + of_key;
      const int to = at + key_chunk<Block::head_dim>(row, piece);
      simt::copy_async16(memory, to, from, in_head && sees(key));
      simt::copy_async16(memory, to + Block::stage_elements / 2, from + head_elements, in_head && sees(key));
    }
    simt::commit_copies();
    read_numbers(stage + 1);
  }
};

// What a thread has of its two rows over the partitions so far: values in shared memory, where nobody else looks.
template <typename Block>
struct RowsTotal {
  Shared<float> values;
  float top[2], sum[2];

  SIMT_DEVICE float& value(int i, int j) const { return values[(4 * i + j) * Block::threads + simt::thread()]; }
  // Becomes merged with the next partition's.
  SIMT_DEVICE void merge(const typename Block::State& later) {
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      if (later.sum[r] == 0) continue;
      const bool first = sum[r] == 0;
      const MergeWeights weights = first ? MergeWeights{later.top[r], 0, 1} : merge_weights(top[r], later.top[r]);
      top[r] = weights.top;
      sum[r] = first ? later.sum[r] : merged(weights, sum[r], later.sum[r]);
      SIMT_UNROLL
      for (int i = 0; i < 2 * Block::fragments; ++i) {
        float& mine = value(i / 2, 2 * r + i % 2);
        const float theirs = later.values[i / 2][2 * r + i % 2];
        mine = first ? theirs : merged(weights, mine, theirs);
      }
    }
  }
  SIMT_DEVICE void store(const CudaAttention& call, const Block& block) const {
    SIMT_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int lane = block.lane_of(r);
      if (!block.exists(lane)) continue;
      Bfloat16* out = call.out + block.element_of_lane(lane, call.ldo);
      SIMT_UNROLL
      for (int i = 0; i < Block::fragments; ++i) {
        if (!Block::is_exact && Block::dimension(i) >= block.stored_dim()) break;
        *reinterpret_cast<std::uint32_t*>(out + Block::dimension(i)) =
            simt::pack_bfloat16(value(i, 2 * r) / sum[r], value(i, 2 * r + 1) / sum[r]);
      }
    }
  }
};

// The keys of a warp's lanes; lanes that do not exist count as the last one that does. A step that no lane sees changes
// no state.
template <typename Block>
struct WarpKeys {
  KeySpan any, all;   // that any lane sees; that all see
  KeySpan of_row[2];  // of the thread's rows

  SIMT_DEVICE WarpKeys(const Block& block, int window) {
    const int last = block.sequence.count * block.group - 1, warp = block.lane_of(0) - simt::lane() / 4;
    const auto keys = [&](int lane) { return block.keys_of_row((lane < last ? lane : last) / block.group, window); };
    const KeySpan low = keys(warp), high = keys(warp + attention_warp_rows - 1);
    any = {low.first, warp <= last ? high.last : 0};
    all = {high.first, low.last};
    of_row[0] = keys(block.lane_of(0));
    of_row[1] = keys(block.lane_of(1));
  }
  SIMT_DEVICE bool sees(int first) const { return first < any.last && first + attention_step > any.first; }
  SIMT_DEVICE bool masks(int first) const { return first < all.first || first + attention_step > all.last; }
};

// state with the step whose keys begin with `first` and lie at `at`.
template <typename Block>
SIMT_DEVICE void add_step(const std::uint32_t (&q)[Block::head_dim / 16][4], const WarpKeys<Block>& keys, float scale,
                          int first, Shared<Bfloat16> memory, int at, typename Block::State& state) {
  const bool masked = keys.masks(first);
  float scores[attention_step / 8][4];
  score_step<Block::head_dim>(q, memory, at, scores);
  SIMT_UNROLL
  for (int r = 0; r < 2; ++r) {
    const KeySpan seen = {keys.of_row[r].first - first, keys.of_row[r].last - first};
    const float top = simt::larger(state.top[r], scale_scores(scale, seen, masked, r, scores));
    const float shift = shift_of(top);
    state.scale(r, simt::exponential_below(state.top[r] - shift));
    state.sum[r] += weigh_scores(shift, r, scores);
    state.top[r] = top;
  }
  SIMT_UNROLL
  for (int k = 0; k < attention_step / 16; ++k) {
    std::uint32_t a[4];
    pack_weights(scores, k, a);
    add_values<Block>(a, k, memory, at + Block::stage_elements / 2, state);
  }
}

// A block: some lanes of one KV head of one sequence, all keys. Blocks: x: KV heads x tiles of lanes, those with the
// most keys first; z: sequences.
template <typename Block>
SIMT_KERNEL_OF(Block::threads, Block::blocks)
attention_rows(CudaAttention call, int blocks) {
  simt::in_order();
  const Block block(call, blocks - 1 - simt::block_x(), simt::block_z());
  if (block.empty()) return;
  const Shared<Bfloat16> memory = simt::shared<Bfloat16>(0, Block::stages * Block::stage_elements);
  KeyLoader<Block> loader{call, block, block.keys_of_block(call.window), memory, {}};
  const int begin = loader.keys.first / Block::stage_keys * 2;
  loader.read_numbers(begin / 2);
  loader.load(begin / 2);
  std::uint32_t q[Block::head_dim / 16][4];
  load_query<0>(call, block, q);
  load_query<1>(call, block, q);
  const WarpKeys<Block> keys(block, call.window);
  RowsTotal<Block> total{simt::shared<float>(Block::total_at, Block::total_count), {}, {}};
  typename Block::State state;
  state.clear();
  for (int step = begin; step * attention_step < loader.keys.last; ++step) {
    if (step % 2 == 0) {
      simt::wait_copies<0>();
      simt::sync_block();
      loader.load(step / 2 + 1);
    }
    const int first = step * attention_step;
    const int at = step / 2 % Block::stages * Block::stage_elements + step % 2 * attention_step * Block::head_dim;
    if (keys.sees(first)) add_step(q, keys, call.scale, first, memory, at, state);
    if ((step + 1) % partition_steps == 0) {
      total.merge(state);
      state.clear();
    }
  }
  simt::wait_copies<0>();
  total.merge(state);  // of a last part of a partition; otherwise of nothing
  total.store(call, block);
}

template <typename Block>
int attention_rows_blocks(const CudaAttention& call) {
  return (call.rows_max * (call.heads / call.kv_heads) + Block::lanes - 1) / Block::lanes * call.kv_heads;
}

template <typename Block, typename Launch>
void launch_attention_rows(Launch& launch, const CudaAttention& call) {
  const int blocks = attention_rows_blocks<Block>(call);
  launch(simt::Shape{.x = blocks,
                     .z = call.sequence_count,
                     .threads = Block::threads,
                     .shared_bytes = Block::shared_bytes,
                     .overlaps = true},
         attention_rows<Block>, call, blocks);
}

// A processor has one block at a time. Of two sizes of block the one that ends first, if each warp takes the same time.
template <int head_dim, bool exact, typename Launch>
void launch_attention_prefill(Launch& launch, const CudaAttention& call, int processors) {
  using Large = RowsBlock<head_dim, exact, 12>;
  using Small = RowsBlock<head_dim, exact, 8>;
  const auto time = [&](int blocks, int threads) {
    return (static_cast<std::int64_t>(blocks) * call.sequence_count + processors - 1) / processors * threads;
  };
  if (time(attention_rows_blocks<Small>(call), Small::threads) <
      time(attention_rows_blocks<Large>(call), Large::threads)) {
    return launch_attention_rows<Small>(launch, call);
  }
  launch_attention_rows<Large>(launch, call);
}

}  // namespace chorus::cuda::inline SIMT_MEANING
