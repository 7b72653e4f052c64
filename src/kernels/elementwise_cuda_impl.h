// Device code of elementwise_cuda.h, for nvcc and for the emulation. Private to elementwise_cuda*.
#pragma once

#include "kernels/elementwise_cuda.h"
#include "simt/simt.h"

namespace chorus::cuda::inline SIMT_MEANING {

inline constexpr int row_threads = 256;
inline constexpr int row_warps = row_threads / simt::warp_lanes;

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

// A block a head of a row.
SIMT_KERNEL_OF(row_threads, 1)
norm_rows(CudaNorm call) {
  const int row = simt::block_x() / call.heads, head = simt::block_x() % call.heads * call.width;
  const float* x = call.x + row * call.ldx + head;
  const std::int64_t to = row * call.ldo + head;
  float center = 0;
  if (call.is_layer_norm) {
    float sum = 0;
    for (int i = simt::thread(); i < call.width; i += row_threads) sum += x[i];
    center = sum_of_block(sum) / static_cast<float>(call.width);
    simt::sync_block();  // sum_of_block's memory is used again
  }
  float squares = 0;
  for (int i = simt::thread(); i < call.width; i += row_threads) {
    const float value = x[i] - center;
    squares = simt::multiply_add(value, value, squares);
  }
  const float mean = sum_of_block(squares) / static_cast<float>(call.width);
  const float factor = 1.0F / simt::square_root(mean + call.eps);
  for (int i = simt::thread(); i < call.width; i += row_threads) {
    float value = (x[i] - center) * factor * call.weight[i];
    if (call.bias != nullptr) value += call.bias[i];
    if (call.out_float != nullptr) {
      call.out_float[to + i] = value;
    } else {
      call.out[to + i] = simt::to_bfloat16(value);
    }
  }
}

struct Turned {
  float first, second;  // elements i and i + rotary_dim / 2
};
SIMT_DEVICE Turned turn(const float* head, int i, int half, const float* cos_sin) {
  const float a = head[i], b = head[i + half], cosine = cos_sin[i], sine = cos_sin[i + half];
  return {a * cosine - b * sine, b * cosine + a * sine};
}

// Writes a head of a row, of which the first rotary_dim elements turn.
SIMT_DEVICE void turn_head(const CudaRotaryWrite& call, const float* head, const float* cos_sin, simt::Bfloat16* out) {
  const int half = call.rotary_dim / 2;
  for (int i = simt::lane(); i < half; i += simt::warp_lanes) {
    const Turned turned = turn(head, i, half, cos_sin);
    out[i] = simt::to_bfloat16(turned.first);
    out[i + half] = simt::to_bfloat16(turned.second);
  }
  for (int i = call.rotary_dim + simt::lane(); i < call.head_dim; i += simt::warp_lanes)
    out[i] = simt::to_bfloat16(head[i]);
}

// A block a row, a warp a head.
SIMT_KERNEL_OF(row_threads, 1)
rotary_write_rows(CudaRotaryWrite call) {
  const int row = simt::block_x();
  const float* from = call.qkv + row * call.ld;
  const float* cos_sin = call.cos_sin + static_cast<std::int64_t>(call.positions[row]) * call.rotary_dim;
  const std::int64_t slot = call.slots[row];
  const std::int64_t head_elements = static_cast<std::int64_t>(call.block_size) * call.head_dim;
  for (int head = simt::warp(); head < call.heads + 2 * call.kv_heads; head += row_warps) {
    const float* source = from + static_cast<std::int64_t>(head) * call.head_dim;
    if (head < call.heads) {
      turn_head(call, source, cos_sin, call.q + (static_cast<std::int64_t>(row) * call.heads + head) * call.head_dim);
      continue;
    }
    if (slot < 0) continue;
    const bool is_key = head < call.heads + call.kv_heads;
    const int kv_head = (head - call.heads) % call.kv_heads;
    const std::int64_t part = (slot / call.block_size * call.kv_heads + kv_head) * 2 + (is_key ? 0 : 1);
    simt::Bfloat16* to = call.cache + part * head_elements + slot % call.block_size * call.head_dim;
    if (is_key) {
      turn_head(call, source, cos_sin, to);
    } else {
      for (int i = simt::lane(); i < call.head_dim; i += simt::warp_lanes) to[i] = simt::to_bfloat16(source[i]);
    }
  }
}

// A block a row, a warp a head.
SIMT_KERNEL_OF(row_threads, 1)
rotary_rows(CudaRotary call) {
  const int row = simt::block_x(), half = call.rotary_dim / 2;
  const float* cos_sin = call.cos_sin + static_cast<std::int64_t>(call.positions[row]) * call.rotary_dim;
  for (int head = simt::warp(); head < call.heads; head += row_warps) {
    float* x = call.x + row * call.ld + static_cast<std::int64_t>(head) * call.head_dim;
    for (int i = simt::lane(); i < half; i += simt::warp_lanes) {
      const Turned turned = turn(x, i, half, cos_sin);
      x[i] = turned.first;
      x[i + half] = turned.second;
    }
  }
}

SIMT_KERNEL_OF(row_threads, 1)
gather_rows(CudaGather call) {
  const std::int64_t row = call.index_of[simt::block_x()] - call.first;
  const bool exists = row >= 0 && row < call.rows;
  float* out = call.out + simt::block_x() * call.ldo;
  for (int i = simt::thread(); i < call.width; i += row_threads) {
    float value = 0;
    if (exists) {
      const std::int64_t at = row * call.ldf + i;
      value = call.from_float != nullptr ? call.from_float[at] : simt::to_float(call.from[at]);
    }
    out[i] = value;
  }
}

SIMT_DEVICE float gelu_tanh_of(float x) {
  const float inner = simt::multiply_add(0.044715F, x * x * x, x);
  return x / (1.0F + simt::exponential(-1.5957691216057308F * inner));  // 2 sqrt(2 / pi)
}

// A thread an element: a block has row_threads of the m * width.
SIMT_KERNEL_OF(row_threads, 1)
elements_of_rows(CudaElements call) {
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
      call.y[to] = gelu_tanh_of(call.y[to]);
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

SIMT_KERNEL_OF(row_threads, 1)
argmax_rows(CudaArgmax call) {
  const float* logits = call.logits + simt::block_x() * call.ld;
  const simt::Shared<Candidate> candidates = simt::shared<Candidate>(0, row_warps);
  const simt::Shared<std::int32_t> nans = simt::shared<std::int32_t>(row_warps * 8, row_warps);
  Candidate best = {0, -1};
  bool not_a_number = false;
  for (int i = simt::thread(); i < call.width; i += row_threads) {
    const float logit = logits[i];
    not_a_number |= !(logit <= 3.4028234664e38F);
    if (logit > simt::float_of(0xff800000U)) best = better(best, {logit, i});
  }
  const bool warp_nan = simt::any_of_warp(not_a_number);
  best = best_of_lanes(best, simt::warp_lanes);
  if (simt::lane() == 0) {
    candidates[simt::warp()] = best;
    nans[simt::warp()] = warp_nan ? 1 : 0;
  }
  simt::sync_block();
  if (simt::warp() != 0) return;
  best = best_of_lanes(candidates[simt::lane() % row_warps], row_warps);
  const bool any = simt::any_of_warp(nans[simt::lane() % row_warps] != 0);
  if (simt::lane() == 0) call.out[simt::block_x()] = any ? -1 : best.index;
}

template <typename Launch>
void launch_norm(Launch& launch, const CudaNorm& call) {
  if (call.m > 0) {
    launch(simt::Shape{.x = call.m * call.heads, .threads = row_threads, .shared_bytes = row_warps * 4}, norm_rows,
           call);
  }
}
template <typename Launch>
void launch_rotary(Launch& launch, const CudaRotary& call) {
  if (call.m > 0) launch(simt::Shape{.x = call.m, .threads = row_threads}, rotary_rows, call);
}
template <typename Launch>
void launch_gather(Launch& launch, const CudaGather& call) {
  if (call.m > 0) launch(simt::Shape{.x = call.m, .threads = row_threads}, gather_rows, call);
}
template <typename Launch>
void launch_elements(Launch& launch, const CudaElements& call) {
  const std::int64_t elements = static_cast<std::int64_t>(call.m) * call.width;
  const auto blocks = static_cast<int>((elements + row_threads - 1) / row_threads);
  if (blocks > 0) launch(simt::Shape{.x = blocks, .threads = row_threads}, elements_of_rows, call);
}
template <typename Launch>
void launch_rotary_write(Launch& launch, const CudaRotaryWrite& call) {
  if (call.m > 0) launch(simt::Shape{.x = call.m, .threads = row_threads}, rotary_write_rows, call);
}
template <typename Launch>
void launch_argmax(Launch& launch, const CudaArgmax& call) {
  if (call.m > 0)
    launch(simt::Shape{.x = call.m, .threads = row_threads, .shared_bytes = row_warps * 12}, argmax_rows, call);
}

}  // namespace chorus::cuda::inline SIMT_MEANING
