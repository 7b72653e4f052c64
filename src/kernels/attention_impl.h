// The attention of a tile, written once over Vector16 and compiled once an instruction set. See vector16.h for the
// rules of such files and attention_tile.h for the words.
//
// What one lane computes is the same whatever its tile: a score is a chain of head_dim multiply-adds in ascending
// dimension, one key a vector lane; a weighted value is a chain of multiply-adds in ascending key. Tiles only choose
// which chains run side by side. Scores of keys that a lane does not see may be computed (and be garbage) but are
// replaced before use; their values are never multiplied, since 0 * NaN is NaN. Codes of 8 bits are widened where they
// are loaded; a key's scale multiplies its score, a value's scale its weight (attention.h).
#pragma once

#include "kernels/attention_tile.h"
#include "kernels/vector16.h"

namespace chorus::CHORUS_VECTOR_NAMESPACE {

inline constexpr int partition_keys = attention_partition_keys;
inline constexpr float minus_infinity = -__builtin_inff();

// Lanes that run side by side, and how many key vectors or value vectors they share: as the registers allow.
#if defined(__AVX512F__)
inline constexpr int lanes_together_max = 8;
constexpr int vectors_together(int lanes) {
  return lanes <= 4 ? 4 : 2;
}
#elif defined(__AVX2__)
inline constexpr int lanes_together_max = 6;
constexpr int vectors_together(int lanes) {
  return lanes == 1 ? 4 : lanes <= 2 ? 2 : 1;
}
#else
inline constexpr int lanes_together_max = 4;
constexpr int vectors_together(int) {
  return 1;
}
#endif
static_assert(lanes_together_max <= attention_lanes_max && partition_keys % 16 == 0);

CHORUS_INLINE int smaller(int a, int b) {
  return a < b ? a : b;
}
CHORUS_INLINE int larger(int a, int b) {
  return a > b ? a : b;
}

// Keys of `partition` that lane `lane` of the sequence sees, counted from the partition's start; first >= last: none.
CHORUS_INLINE AttentionSpan keys_of_lane(const AttentionCall& call, const AttentionTile& tile, int lane,
                                         int partition) {
  const int position = tile.start + lane / call.group;
  const int begin = partition * partition_keys;
  const int first = call.window > 0 ? larger(0, position + 1 - call.window) : 0;
  return {larger(first - begin, 0), smaller(position + 1 - begin, partition_keys)};
}

// Where the data of one key vector begins: K of 16 keys, V of the same keys.
template <typename T>
struct KeyVector {
  const T* keys;
  const T* values;
};
// And the scales of their rows.
template <typename T>
inline constexpr bool has_scales = sizeof(T) == 1;
template <>
struct KeyVector<Int8Code> {
  const Int8Code* keys;
  const Int8Code* values;
  const float* key_scales;
  const float* value_scales;
};
template <typename T>
CHORUS_INLINE KeyVector<T> key_vector(const AttentionCall& call, const AttentionTile& tile, int position) {
  const std::size_t block = static_cast<std::size_t>(tile.block_table[position / call.block_size]);
  const std::byte* head =
      call.cache + block * call.block_bytes + static_cast<std::size_t>(tile.kv_head) * 2 * call.head_bytes;
  const int slot = position % call.block_size;
  const T* keys = reinterpret_cast<const T*>(head);
  const T* values = reinterpret_cast<const T*>(head + call.head_bytes);
  const std::ptrdiff_t first_value = static_cast<std::ptrdiff_t>(slot) * call.head_dim;
  if constexpr (has_scales<T>) {
    const std::ptrdiff_t codes = static_cast<std::ptrdiff_t>(call.block_size) * call.head_dim;
    return {keys + slot, values + first_value, reinterpret_cast<const float*>(keys + codes) + slot,
            reinterpret_cast<const float*>(values + codes) + slot};
  } else {
    return {keys + slot, values + first_value};
  }
}

template <typename T>
CHORUS_INLINE Vector16 scaled_scores(Vector16 scores, const KeyVector<T>& of) {
  if constexpr (has_scales<T>) return multiply(scores, load(of.key_scales));
  return scores;
}
template <typename T>
CHORUS_INLINE Vector16 scaled_weights(Vector16 weights, const KeyVector<T>& of) {
  if constexpr (has_scales<T>) return multiply(weights, load(of.value_scales));
  return weights;
}

// scores[r][16 v ..] of `lanes` lanes and `vectors` key vectors. q: [head_dim][lanes]; now[v].keys: [head_dim],
// `stride` apart. Blocks lie anywhere in memory, out of the hardware prefetcher's sight: with `prefetch` the values of
// these keys and the keys of the `next` vectors are asked for meanwhile.
template <typename T, int lanes, int vectors, bool prefetch>
CHORUS_INLINE void score_keys(const float* q, int head_dim, const KeyVector<T>* now, const KeyVector<T>* next,
                              int stride, float* scores) {
  Vector16 sums[lanes][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < lanes; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sums[r][v] = zero();
  }
  if constexpr (prefetch && has_scales<T>) {
    for (int v = 0; v < vectors; ++v) {
      __builtin_prefetch(next[v].key_scales);
      __builtin_prefetch(now[v].value_scales);
    }
  }
  for (int d = 0; d < head_dim; ++d, q += lanes) {
    Vector16 k[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      k[v] = load(now[v].keys + static_cast<std::ptrdiff_t>(d) * stride);
      if constexpr (prefetch) {
        __builtin_prefetch(next[v].keys + static_cast<std::ptrdiff_t>(d) * stride);
        __builtin_prefetch(now[v].values + static_cast<std::ptrdiff_t>(d) * 16);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < lanes; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = multiply_add(broadcast(q[r]), k[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < lanes; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const int key = r * partition_keys + 16 * v;
      store(scores + key, scaled_scores(sums[r][v], now[v]));
    }
  }
}

// Scores of the keys `seen` of a partition, and where their vectors are: found[i] for keys [16 i, 16 i + 16).
template <typename T, int lanes, bool prefetch>
CHORUS_INLINE void score_partition(const AttentionCall& call, const AttentionTile& tile, int partition,
                                   AttentionSpan seen, const float* q, float* scores, KeyVector<T>* found) {
  constexpr int vectors = vectors_together(lanes);
  const int begin = partition * partition_keys;
  const int last_position = tile.start + (tile.lane + tile.lanes - 1) / call.group;
  for (int key = seen.first / 16 * 16; key < seen.last; key += 16) {
    found[key / 16] = key_vector<T>(call, tile, begin + key);
  }
  int key = seen.first / 16 * 16;
  for (; key + 16 * (vectors - 1) < seen.last; key += 16 * vectors) {
    KeyVector<T> next[vectors];
    for (int v = 0; prefetch && v < vectors; ++v) {
      const int position = begin + key + 16 * (vectors + v);
      next[v] = position <= last_position ? key_vector<T>(call, tile, position) : found[key / 16 + v];
    }
    score_keys<T, lanes, vectors, prefetch>(q, call.head_dim, found + key / 16, next, call.block_size, scores + key);
  }
  for (; key < seen.last; key += 16) {
    score_keys<T, lanes, 1, prefetch>(q, call.head_dim, found + key / 16, found + key / 16, call.block_size,
                                      scores + key);
  }
}

// Turns the scores of a lane's keys into the weights of their values, e^(score - maximum) times the value's scale; in
// the sum, which takes no scale, the rest of the first and last vector is exactly 0.
template <typename T>
CHORUS_INLINE void softmax_of_partition(const KeyVector<T>* found, AttentionSpan seen, float softcap, float* scores,
                                        float* state) {
  const int first = seen.first / 16 * 16, last = (seen.last + 15) / 16 * 16;
  for (int key = first; softcap != 0 && key < last; key += 16) {
    store(scores + key, soft_capped(load(scores + key), softcap));
  }
  for (int key = first; key < seen.first; ++key) scores[key] = minus_infinity;
  for (int key = seen.last; key < last; ++key) scores[key] = minus_infinity;
  Vector16 largest = broadcast(minus_infinity);
  for (int key = first; key < last; key += 16) largest = maximum(largest, load(scores + key));
  state[0] = maximum_of(largest);
  const Vector16 shift = broadcast(state[0]);
  Vector16 sum = zero();
  for (int key = first; key < last; key += 16) {
    const Vector16 weight = exponential(subtract(load(scores + key), shift));
    store(scores + key, scaled_weights(weight, found[key / 16]));
    sum = add(sum, weight);
  }
  state[1] = sum_of(sum);
}

// values[r][16 i ..] += weights[r][key] * V[key][16 i ..] over the keys `seen`, for `vectors` vectors from dimension d
// on, of which the last has `tail` elements unless it is whole.
template <typename T, int lanes, int vectors, bool whole>
CHORUS_INLINE void add_values(const KeyVector<T>* found, AttentionSpan seen, const float* weights, int head_dim, int d,
                              int tail, std::ptrdiff_t state_stride, float* values) {
  Vector16 sums[lanes][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < lanes; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) {
      const int column = d + 16 * i;
      sums[r][i] = load(values + r * state_stride + column);
    }
  }
  for (int key = seen.first; key < seen.last;) {
    const T* value = found[key / 16].values + static_cast<std::ptrdiff_t>(key % 16) * head_dim + d;
    const int end = smaller(seen.last, key / 16 * 16 + 16);
    for (; key < end; ++key, value += head_dim) {
      Vector16 v[vectors];
#pragma GCC unroll 4
      for (int i = 0; i < vectors; ++i) {
        v[i] = whole || i + 1 < vectors ? load(value + 16 * i) : load_first(value + 16 * i, tail);
      }
#pragma GCC unroll 8
      for (int r = 0; r < lanes; ++r) {
        const Vector16 weight = broadcast(weights[r * partition_keys + key]);
#pragma GCC unroll 4
        for (int i = 0; i < vectors; ++i) sums[r][i] = multiply_add(weight, v[i], sums[r][i]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < lanes; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors; ++i) {
      const int column = d + 16 * i;
      store(values + r * state_stride + column, sums[r][i]);
    }
  }
}

// The same for all of head_dim. values: the lane's state + attention_state_values.
template <typename T, int lanes>
CHORUS_INLINE void add_values_of_partition(const AttentionCall& call, const KeyVector<T>* found, AttentionSpan seen,
                                           const float* weights, float* values) {
  if (seen.first >= seen.last) return;
  constexpr int vectors = vectors_together(lanes);
  const std::ptrdiff_t state_stride = attention_state_values + call.head_dim_padded;
  const int tail = call.head_dim % 16;
  int d = 0;
  for (; d + 16 * vectors <= call.head_dim; d += 16 * vectors) {
    add_values<T, lanes, vectors, true>(found, seen, weights, call.head_dim, d, 16, state_stride, values);
  }
  for (; d + 16 <= call.head_dim; d += 16) {
    add_values<T, lanes, 1, true>(found, seen, weights, call.head_dim, d, 16, state_stride, values);
  }
  if (tail != 0) add_values<T, lanes, 1, false>(found, seen, weights, call.head_dim, d, tail, state_stride, values);
}

// One partition for `lanes` lanes from `lane` (counted in the sequence) on.
template <typename T, int lanes>
void lanes_partition(const AttentionCall& call, const AttentionTile& tile, int lane, const float* q, int partition,
                     float* weights, float* state) {
  const std::ptrdiff_t state_stride = attention_state_values + call.head_dim_padded;
  AttentionSpan spans[lanes];
  AttentionSpan any = {partition_keys, 0}, all = {0, partition_keys};
  for (int r = 0; r < lanes; ++r) {
    spans[r] = keys_of_lane(call, tile, lane + r, partition);
    all = {larger(all.first, spans[r].first), smaller(all.last, spans[r].last)};
    if (spans[r].first < spans[r].last) any = {smaller(any.first, spans[r].first), larger(any.last, spans[r].last)};
  }
  KeyVector<T> found[partition_keys / 16];
  if (any.first < any.last && lane == tile.lane) {
    score_partition<T, lanes, true>(call, tile, partition, any, q, weights, found);
  } else if (any.first < any.last) {
    score_partition<T, lanes, false>(call, tile, partition, any, q, weights, found);
  }
  for (int r = 0; r < lanes; ++r) {
    float* lane_state = state + r * state_stride;
    lane_state[0] = lane_state[1] = 0;
    for (int d = 0; d < call.head_dim_padded; d += 16) store(lane_state + attention_state_values + d, zero());
    if (spans[r].first < spans[r].last)
      softmax_of_partition(found, spans[r], call.softcap, weights + std::ptrdiff_t{r} * partition_keys, lane_state);
  }
  // Ascending keys for every lane: those before the span that all share, the shared ones, those after it.
  const bool shared = all.first < all.last;
  for (int r = 0; r < lanes; ++r) {
    const AttentionSpan before = {spans[r].first, shared ? all.first : spans[r].last};
    add_values_of_partition<T, 1>(call, found, before, weights + std::ptrdiff_t{r} * partition_keys,
                                  state + r * state_stride + attention_state_values);
  }
  if (!shared) return;
  add_values_of_partition<T, lanes>(call, found, all, weights, state + attention_state_values);
  for (int r = 0; r < lanes; ++r) {
    add_values_of_partition<T, 1>(call, found, {all.last, spans[r].last}, weights + std::ptrdiff_t{r} * partition_keys,
                                  state + r * state_stride + attention_state_values);
  }
}

template <typename T>
void lanes_partition(int lanes, const AttentionCall& call, const AttentionTile& tile, int lane, const float* q,
                     int partition, float* weights, float* state) {
  switch (lanes) {
    case 1:
      return lanes_partition<T, 1>(call, tile, lane, q, partition, weights, state);
    case 2:
      return lanes_partition<T, 2>(call, tile, lane, q, partition, weights, state);
    case 3:
      return lanes_partition<T, 3>(call, tile, lane, q, partition, weights, state);
    case 4:
      return lanes_partition<T, 4>(call, tile, lane, q, partition, weights, state);
#if defined(__AVX2__)
    case 5:
      return lanes_partition<T, 5>(call, tile, lane, q, partition, weights, state);
    case 6:
      return lanes_partition<T, 6>(call, tile, lane, q, partition, weights, state);
#endif
#if defined(__AVX512F__)
    case 7:
      return lanes_partition<T, 7>(call, tile, lane, q, partition, weights, state);
    case 8:
      return lanes_partition<T, 8>(call, tile, lane, q, partition, weights, state);
#endif
    default:
      __builtin_unreachable();
  }
}

inline void tile_partition(const AttentionCall& call, const AttentionTile& tile, const float* packed, int partition,
                           float* weights, float* state) {
  const std::ptrdiff_t state_stride = attention_state_values + call.head_dim_padded;
  for (int i = 0; i < tile.lanes; i += lanes_together_max) {
    const int lanes = smaller(lanes_together_max, tile.lanes - i);
    const float* q = packed + static_cast<std::ptrdiff_t>(i) * call.head_dim;
    float* lanes_state = state + i * state_stride;
    switch (call.dtype) {
      case KvDType::float32:
        lanes_partition<float>(lanes, call, tile, tile.lane + i, q, partition, weights, lanes_state);
        break;
      case KvDType::bfloat16:
        lanes_partition<Bfloat16Bits>(lanes, call, tile, tile.lane + i, q, partition, weights, lanes_state);
        break;
      case KvDType::int8:
        lanes_partition<Int8Code>(lanes, call, tile, tile.lane + i, q, partition, weights, lanes_state);
        break;
    }
  }
}

// Index of the lane's head in a row of q or out.
CHORUS_INLINE std::ptrdiff_t offset_of_lane(const AttentionCall& call, const AttentionTile& tile, int lane,
                                            std::int64_t stride) {
  const std::int64_t row = tile.row + lane / call.group;
  return row * stride + static_cast<std::int64_t>(tile.kv_head * call.group + lane % call.group) * call.head_dim;
}

// [lanes_together_max lanes at a time][head_dim][lane], times the scale.
inline void tile_pack(const AttentionCall& call, const AttentionTile& tile, float* packed) {
  for (int i = 0; i < tile.lanes; i += lanes_together_max) {
    const int lanes = smaller(lanes_together_max, tile.lanes - i);
    for (int r = 0; r < lanes; ++r) {
      const float* q = call.q + offset_of_lane(call, tile, tile.lane + i + r, call.ldq);
      for (int d = 0; d < call.head_dim; ++d) packed[d * lanes + r] = q[d] * call.scale;
    }
    packed += std::ptrdiff_t{lanes} * call.head_dim;
  }
}

// The online softmax's step: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1.
inline void tile_merge(const AttentionCall& call, const AttentionTile& tile, const float* later, float* state) {
  const std::ptrdiff_t values = attention_state_values + call.head_dim_padded;
  for (int i = 0; i < tile.lanes; ++i, later += values, state += values) {
    if (later[1] == 0) continue;
    if (state[1] == 0) {
      for (std::ptrdiff_t d = 0; d < values; d += 16) store(state + d, load(later + d));
      continue;
    }
    const Vector16 top = maximum(broadcast(state[0]), broadcast(later[0]));
    const Vector16 mine = exponential(subtract(broadcast(state[0]), top));
    const Vector16 theirs = exponential(subtract(broadcast(later[0]), top));
    const Vector16 sum = multiply_add(broadcast(later[1]), theirs, multiply(broadcast(state[1]), mine));
    store_first(state, top, 1);
    store_first(state + 1, sum, 1);
    for (std::ptrdiff_t d = attention_state_values; d < values; d += 16) {
      store(state + d, multiply_add(load(later + d), theirs, multiply(load(state + d), mine)));
    }
  }
}

// The lane's state merged with its head's sink: what its sum and values become.
struct Finishing {
  Vector16 sum, factor;
};
CHORUS_INLINE Finishing with_sink(const float* state, float sink) {
  const Vector16 top = maximum(broadcast(state[0]), broadcast(sink));
  const Vector16 mine = exponential(subtract(broadcast(state[0]), top));
  return {multiply_add(broadcast(state[1]), mine, exponential(subtract(broadcast(sink), top))), mine};
}

inline void tile_finish(const AttentionCall& call, const AttentionTile& tile, const float* state) {
  const std::ptrdiff_t values = attention_state_values + call.head_dim_padded;
  for (int i = 0; i < tile.lanes; ++i, state += values) {
    float* out = call.out + offset_of_lane(call, tile, tile.lane + i, call.ldo);
    Finishing last = {broadcast(state[1]), broadcast(1.0F)};
    if (call.sinks != nullptr) {
      last = with_sink(state, call.sinks[tile.kv_head * call.group + (tile.lane + i) % call.group]);
    }
    for (int d = 0; d < call.head_dim; d += 16) {
      Vector16 value = load(state + attention_state_values + d);
      if (call.sinks != nullptr) value = multiply(value, last.factor);
      store_first(out + d, divide(value, last.sum), smaller(16, call.head_dim - d));
    }
  }
}

inline constexpr AttentionKernels attention_kernels = {8 * lanes_together_max, tile_pack, tile_partition, tile_merge,
                                                       tile_finish};

}  // namespace chorus::CHORUS_VECTOR_NAMESPACE
