// Device code of elementwise_cuda.h, for nvcc and for the emulation. Private to elementwise_cuda*.
#pragma once

#include "kernels/activation_cuda_impl.h"
#include "kernels/elementwise_cuda.h"
#include "simt/simt.h"

namespace chorus::cuda::inline SIMT_MEANING {

inline constexpr int row_threads = 256;
inline constexpr int row_warps = row_threads / simt::warp_lanes;
// Of a row of logits: so many since few rows, often one, are all there is.
inline constexpr int argmax_threads = 1024;
inline constexpr int argmax_warps = argmax_threads / simt::warp_lanes;

// The sum over the block's threads, in every thread: lanes by halving distances, then warps by halving distances.
SIMT_DEVICE float sum_of_block(float value) {
  SIMT_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) value += simt::shuffle_xor(value, mask);
  const simt::Shared<float> sums = simt::shared<float>(0, row_warps);
  if (simt::lane() == 0) sums[simt::warp()] = value;
  simt::sync_block();
  value = sums[simt::lane() % row_warps];
  SIMT_UNROLL
  for (int mask = row_warps / 2; mask > 0; mask /= 2) value += simt::shuffle_xor(value, mask);
  return value;
}

// Element j of those that a thread has of a row: 0 beyond the row's end.
SIMT_DEVICE float element_of(const float* row, int j, int width) {
  const int i = simt::thread() + j * row_threads;
  return i < width ? row[i] : 0.0F;
}

// A block a head of a row. A thread holds its first `held` elements: all that it reads of the row and of the weights is
// on its way before the first is needed, and is read once. Of wider rows it reads the rest each time.
template <int held>
SIMT_KERNEL_OF(row_threads, held > 16 ? 2 : 4)
norm_rows(CudaNorm call) {
  simt::in_order();
  const int row = simt::block_x() / call.heads, head = simt::block_x() % call.heads * call.width;
  const float* x = call.x + row * call.ldx + head;
  const std::int64_t to = row * call.ldo + head;
  float weights[held], values[held];
  SIMT_UNROLL
  for (int j = 0; j < held; ++j) weights[j] = element_of(call.weight, j, call.width);
  SIMT_UNROLL
  for (int j = 0; j < held; ++j) values[j] = element_of(x, j, call.width);
  const auto each = [&](auto f) {  // f(value, i, weight) for the thread's elements i in ascending order
    SIMT_UNROLL
    for (int j = 0; j < held; ++j) {
      const int i = simt::thread() + j * row_threads;
      if (i < call.width) f(values[j], i, weights[j]);
    }
    for (int i = simt::thread() + held * row_threads; i < call.width; i += row_threads) f(x[i], i, call.weight[i]);
  };
  float center = 0;
  if (call.is_layer_norm) {
    float sum = 0;
    each([&](float value, int, float) { sum += value; });
    center = sum_of_block(sum) / static_cast<float>(call.width);
    simt::sync_block();  // sum_of_block's memory is used again
  }
  float squares = 0;
  each([&](float value, int, float) { squares = simt::multiply_add(value - center, value - center, squares); });
  const float mean = sum_of_block(squares) / static_cast<float>(call.width);
  const float factor = 1.0F / simt::square_root(mean + call.eps);
  each([&](float element, int i, float weight) {
    float value = (element - center) * factor * weight;
    if (call.bias != nullptr) value += call.bias[i];
    if (call.out_float != nullptr) {
      call.out_float[to + i] = value;
    } else {
      call.out[to + i] = simt::to_bfloat16(value);
    }
  });
}

using simt::Floats;
template <int count>
struct alignas(2 * count) Bfloats {  // as Floats
  simt::Bfloat16 at[count];
};
template <typename T>
SIMT_DEVICE T read_if(bool condition, const void* from) {
  return condition ? *static_cast<const T*>(from) : T{};
}
template <int count>
SIMT_DEVICE void store_rounded(simt::Bfloat16* to, const Floats<count>& values) {
  Bfloats<count> rounded;
  SIMT_UNROLL
  for (int i = 0; i < count; ++i) rounded.at[i] = simt::to_bfloat16(values.at[i]);
  *reinterpret_cast<Bfloats<count>*>(to) = rounded;
}
// Whether rows of this stride can be read four numbers at a time.
inline bool in_fours(const void* rows, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(rows) % 16 == 0 && stride % 4 == 0;
}

struct Turned {
  float first, second;  // elements i and i + rotary_dim / 2
};
SIMT_DEVICE Turned turn(float a, float b, float cosine, float sine) {
  return {a * cosine - b * sine, b * cosine + a * sine};
}

// Twice `count` elements of a head of queries, keys or values: [first, first + count), and [second, second + count),
// which they turn with where `turns`.
template <int count>
struct RotaryUnit {
  int head, first, second;
  bool turns;
  Floats<count> a, b, cosine, sine;

  // Unit `index` of a row.
  SIMT_DEVICE RotaryUnit(const CudaRotaryWrite& call, unsigned index) {
    const unsigned of_head = static_cast<unsigned>(call.head_dim) / (2 * count);
    const int half = call.rotary_dim / 2, unit = static_cast<int>(index % of_head) * count;
    head = static_cast<int>(index / of_head);
    const bool in_pair = unit < half;
    first = in_pair ? unit : 2 * unit;
    second = in_pair ? unit + half : 2 * unit + count;
    turns = in_pair && head < call.heads + call.kv_heads;
  }
  SIMT_DEVICE void read(const CudaRotaryWrite& call, const float* row, bool exists) {
    const float* from = row + static_cast<std::int64_t>(head) * call.head_dim;
    a = read_if<Floats<count>>(exists, from + first);
    b = read_if<Floats<count>>(exists, from + second);
  }
  SIMT_DEVICE void read_angles(const float* cos_sin) {
    cosine = read_if<Floats<count>>(turns, cos_sin + first);
    sine = read_if<Floats<count>>(turns, cos_sin + second);
  }
  SIMT_DEVICE void write(simt::Bfloat16* to) {
    SIMT_UNROLL
    for (int i = 0; i < count; ++i) {
      const Turned turned = turn(a.at[i], b.at[i], cosine.at[i], sine.at[i]);
      a.at[i] = turns ? turned.first : a.at[i];
      b.at[i] = turns ? turned.second : b.at[i];
    }
    store_rounded(to + first, a);
    store_rounded(to + second, b);
  }
};

// Where a head of a row goes; null: nowhere.
SIMT_DEVICE simt::Bfloat16* rotary_target(const CudaRotaryWrite& call, int row, int head, std::int64_t slot) {
  if (head < call.heads) return call.q + (static_cast<std::int64_t>(row) * call.heads + head) * call.head_dim;
  if (slot < 0) return nullptr;
  const bool is_key = head < call.heads + call.kv_heads;
  const int kv_head = head - call.heads - (is_key ? 0 : call.kv_heads);
  const std::int64_t part = ((slot >> call.block_size_log2) * call.kv_heads + kv_head) * 2 + (is_key ? 0 : 1);
  const std::int64_t place = slot & (call.block_size - 1);
  return call.cache + (part * call.block_size + place) * call.head_dim;
}

// A block a row. A thread reads `together` units before it needs the first.
template <int count>
SIMT_KERNEL_OF(row_threads, 3)
rotary_write_rows(CudaRotaryWrite call) {
  simt::in_order();
  constexpr int together = 3;
  const int row = simt::block_x();
  const float* from = call.qkv + row * call.ld;
  const float* cos_sin = call.cos_sin + static_cast<std::int64_t>(call.positions[row]) * call.rotary_dim;
  const std::int64_t slot = call.slots[row];
  const int units = (call.heads + 2 * call.kv_heads) * (call.head_dim / (2 * count));
  for (int index = simt::thread(); index < units; index += together * row_threads) {
    const auto unit = [&](int j) { return RotaryUnit<count>(call, static_cast<unsigned>(index + j * row_threads)); };
    RotaryUnit<count> some[together] = {unit(0), unit(1), unit(2)};
    SIMT_UNROLL
    for (int j = 0; j < together; ++j) some[j].read(call, from, index + j * row_threads < units);
    SIMT_UNROLL
    for (int j = 0; j < together; ++j) some[j].read_angles(cos_sin);
    SIMT_UNROLL
    for (int j = 0; j < together; ++j) {
      if (index + j * row_threads >= units) break;
      simt::Bfloat16* to = rotary_target(call, row, some[j].head, slot);
      if (to != nullptr) some[j].write(to);
    }
  }
}

// A block a row, a warp a head.
SIMT_KERNEL_OF(row_threads, 1)
rotary_rows(CudaRotary call) {
  simt::in_order();
  const int row = simt::block_x(), half = call.rotary_dim / 2;
  const float* cos_sin = call.cos_sin + static_cast<std::int64_t>(call.positions[row]) * call.rotary_dim;
  for (int head = simt::warp(); head < call.heads; head += row_warps) {
    float* x = call.x + row * call.ld + static_cast<std::int64_t>(head) * call.head_dim;
    for (int i = simt::lane(); i < half; i += simt::warp_lanes) {
      const Turned turned = turn(x[i], x[i + half], cos_sin[i], cos_sin[i + half]);
      x[i] = turned.first;
      x[i + half] = turned.second;
    }
  }
}

SIMT_DEVICE Floats<1> to_floats(const Bfloats<1>& values) {
  return {simt::to_float(values.at[0])};
}
SIMT_DEVICE Floats<4> to_floats(const Bfloats<4>& values) {
  return {simt::to_float(values.at[0]), simt::to_float(values.at[1]), simt::to_float(values.at[2]),
          simt::to_float(values.at[3])};
}

// A block a row. A thread reads `together` times `count` elements before it needs the first.
template <int count>
SIMT_KERNEL_OF(row_threads, 1)
gather_rows(CudaGather call) {
  simt::in_order();
  constexpr int together = 4;
  const std::int64_t row = call.index_of[simt::block_x()] - call.first;
  const bool exists = row >= 0 && row < call.rows;
  float* out = call.out + simt::block_x() * call.ldo;
  for (int i = simt::thread() * count; i < call.width; i += together * row_threads * count) {
    Floats<count> values[together];
    SIMT_UNROLL
    for (int j = 0; j < together; ++j) {
      const int column = i + j * row_threads * count;
      const bool read = exists && column < call.width;
      const std::int64_t at = row * call.ldf + column;
      values[j] = call.from_float != nullptr ? read_if<Floats<count>>(read, call.from_float + at)
                                             : to_floats(read_if<Bfloats<count>>(read, call.from + at));
    }
    SIMT_UNROLL
    for (int j = 0; j < together; ++j) {
      const int column = i + j * row_threads * count;
      if (column < call.width) *reinterpret_cast<Floats<count>*>(out + column) = values[j];
    }
  }
}

// A thread an element: a block has row_threads of the m * width.
SIMT_KERNEL_OF(row_threads, 1)
elements_of_rows(CudaElements call) {
  simt::in_order();
  const std::int64_t index = static_cast<std::int64_t>(simt::block_x()) * row_threads + simt::thread();
  if (index >= static_cast<std::int64_t>(call.m) * call.width) return;
  const std::int64_t row = index / call.width, column = index % call.width;
  const std::int64_t to = row * call.ldy + column, from = row * call.ldx + column;
  switch (call.what) {
    case CudaPointwise::zero:
      call.y[to] = 0;
      break;
    case CudaPointwise::scale:
      call.y[to] = call.y[to] * call.factor;
      break;
    case CudaPointwise::add:
      call.y[to] = call.y[to] + call.factor * call.x[from];
      break;
    case CudaPointwise::round:
      call.y_rounded[to] = simt::to_bfloat16(call.x[from]);
      break;
    case CudaPointwise::gelu_tanh:
      call.y[to] = activated<true>(call.y[to]);
      break;
    case CudaPointwise::softcap: {
      const float part = 2.0F / (1.0F + simt::exponential(call.y[to] * (2.0F / call.factor)));
      call.y[to] = call.factor * (1.0F - part);
      break;
    }
  }
}

// The larger logit of two candidates, the lower index among equals.
struct Candidate {
  float logit;
  std::int32_t index;  // -1: none
};
SIMT_DEVICE Candidate better(Candidate a, Candidate b) {
  if (a.index < 0 || b.index < 0) return a.index < 0 ? b : a;
  if (a.logit != b.logit) return a.logit > b.logit ? a : b;
  return a.index < b.index ? a : b;
}
// Indices go through lanes as the bits of a float.
SIMT_DEVICE Candidate best_of_lanes(Candidate mine, int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    const float logit = simt::shuffle_xor(mine.logit, mask);
    const float index = simt::shuffle_xor(simt::float_of(static_cast<std::uint32_t>(mine.index)), mask);
    mine = better(mine, {logit, static_cast<std::int32_t>(simt::bits_of(index))});
  }
  return mine;
}

// The best of the thread's logits, `count` in one piece; a candidate's index is the lowest of its logit, since a thread
// meets its logits in ascending order.
template <int count>
SIMT_DEVICE Candidate best_of_thread(const float* logits, int width, bool& not_a_number) {
  constexpr int together = 4, round = argmax_threads * count;
  Candidate best = {simt::float_of(0xff800000U), -1};
  for (int i = simt::thread() * count; i < width; i += together * round) {
    Floats<count> some[together];
    SIMT_UNROLL
    for (int j = 0; j < together; ++j) {
      const int index = i + j * round;
      some[j] = read_if<Floats<count>>(index < width, logits + index);
    }
    SIMT_UNROLL
    for (int j = 0; j < together * count; ++j) {
      const int index = i + j / count * round + j % count;
      const float logit = some[j / count].at[j % count];
      not_a_number |= !(logit <= 3.4028234664e38F);
      if (logit > best.logit && index < width) best = {logit, index};
    }
  }
  return best;
}

// A block a row.
template <int count>
SIMT_KERNEL_OF(argmax_threads, 1)
argmax_rows(CudaArgmax call) {
  simt::in_order();
  const simt::Shared<Candidate> candidates = simt::shared<Candidate>(0, argmax_warps);
  const simt::Shared<std::int32_t> nans = simt::shared<std::int32_t>(argmax_warps * 8, argmax_warps);
  bool not_a_number = false;
  Candidate best = best_of_thread<count>(call.logits + simt::block_x() * call.ld, call.width, not_a_number);
  const bool warp_nan = simt::any_of_warp(not_a_number);
  best = best_of_lanes(best, simt::warp_lanes);
  if (simt::lane() == 0) {
    candidates[simt::warp()] = best;
    nans[simt::warp()] = warp_nan ? 1 : 0;
  }
  simt::sync_block();
  if (simt::warp() != 0) return;
  best = best_of_lanes(candidates[simt::lane() % argmax_warps], argmax_warps);
  const bool any = simt::any_of_warp(nans[simt::lane() % argmax_warps] != 0);
  if (simt::lane() == 0) call.out[simt::block_x()] = any ? -1 : best.index;
}

template <typename Launch>
void launch_norm(Launch& launch, const CudaNorm& call) {
  if (call.m == 0) return;
  const simt::Shape shape{
      .x = call.m * call.heads, .threads = row_threads, .shared_bytes = row_warps * 4, .overlaps = true};
  if (call.width <= row_threads) return launch(shape, norm_rows<1>, call);
  if (call.width <= 4 * row_threads) return launch(shape, norm_rows<4>, call);
  if (call.width <= 16 * row_threads) return launch(shape, norm_rows<16>, call);
  launch(shape, norm_rows<32>, call);
}
template <typename Launch>
void launch_rotary(Launch& launch, const CudaRotary& call) {
  if (call.m > 0) launch(simt::Shape{.x = call.m, .threads = row_threads, .overlaps = true}, rotary_rows, call);
}
template <typename Launch>
void launch_gather(Launch& launch, const CudaGather& call) {
  if (call.m == 0) return;
  const simt::Shape shape{.x = call.m, .threads = row_threads, .overlaps = true};
  const bool fours = call.width % 4 == 0 && in_fours(call.from, call.ldf) && in_fours(call.from_float, call.ldf) &&
                     in_fours(call.out, call.ldo);
  launch(shape, fours ? gather_rows<4> : gather_rows<1>, call);
}
template <typename Launch>
void launch_elements(Launch& launch, const CudaElements& call) {
  const std::int64_t elements = static_cast<std::int64_t>(call.m) * call.width;
  const auto blocks = static_cast<int>((elements + row_threads - 1) / row_threads);
  if (blocks > 0) launch(simt::Shape{.x = blocks, .threads = row_threads, .overlaps = true}, elements_of_rows, call);
}
template <typename Launch>
void launch_rotary_write(Launch& launch, CudaRotaryWrite call) {
  if (call.m == 0) return;
  call.block_size_log2 = 0;
  while (1 << call.block_size_log2 < call.block_size) ++call.block_size_log2;
  const bool fours = call.head_dim % 8 == 0 && call.rotary_dim % 8 == 0 && in_fours(call.qkv, call.ld) &&
                     in_fours(call.cos_sin, call.rotary_dim) && in_fours(call.q, 0) && in_fours(call.cache, 0);
  launch(simt::Shape{.x = call.m, .threads = row_threads, .overlaps = true},
         fours ? rotary_write_rows<4> : rotary_write_rows<1>, call);
}
template <typename Launch>
void launch_argmax(Launch& launch, const CudaArgmax& call) {
  if (call.m == 0) return;
  const simt::Shape shape{.x = call.m, .threads = argmax_threads, .shared_bytes = argmax_warps * 12, .overlaps = true};
  const bool fours = call.width % 4 == 0 && in_fours(call.logits, call.ld);
  launch(shape, fours ? argmax_rows<4> : argmax_rows<1>, call);
}

}  // namespace chorus::cuda::inline SIMT_MEANING
