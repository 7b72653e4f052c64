#include "kernels/elementwise.h"

#include "base/check.h"
#include "kernels/elementwise_rows.h"

namespace chorus {
namespace {

// Below this many elements waking the other threads costs more than their help brings.
constexpr std::int64_t worth_threads = 16384;

// f(row) for rows [0, m).
template <typename F>
void for_each_row(ThreadPool& pool, std::int64_t m, std::int64_t width, F f) {
  if (m * width < worth_threads) {
    for (std::int64_t row = 0; row < m; ++row) f(row);
    return;
  }
  pool.for_range(m, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) f(row);
  });
}

}  // namespace

const ElementwiseKernels& elementwise_kernels(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return elementwise_kernels_scalar();
    case Isa::avx2_f32:
      return elementwise_kernels_avx2();
    case Isa::avx512_bf16:
    case Isa::amx_bf16:
      return elementwise_kernels_avx512();
    case Isa::cuda_sm90:
      break;
  }
  return elementwise_kernels_scalar();
}

void rms_norm(ThreadPool& pool, Isa isa, const float* x, std::int64_t m, std::int64_t width, std::int64_t ldx,
              const float* weight, float eps, float* out, std::int64_t ldo) {
  const auto& kernels = elementwise_kernels(isa);
  for_each_row(pool, m, width,
               [&](std::int64_t row) { kernels.rms_norm(x + row * ldx, width, weight, eps, out + row * ldo); });
}

void rms_norm_heads(ThreadPool& pool, Isa isa, float* x, std::int64_t m, int heads, int head_dim, std::int64_t ldx,
                    const float* weight, float eps) {
  const auto& kernels = elementwise_kernels(isa);
  for_each_row(pool, m, std::int64_t{heads} * head_dim, [&](std::int64_t row) {
    float* head = x + row * ldx;
    for (int i = 0; i < heads; ++i, head += head_dim) kernels.rms_norm(head, head_dim, weight, eps, head);
  });
}

void layer_norm(ThreadPool& pool, Isa isa, const float* x, std::int64_t m, std::int64_t width, std::int64_t ldx,
                const float* weight, const float* bias, float eps, float* out, std::int64_t ldo) {
  const auto& kernels = elementwise_kernels(isa);
  for_each_row(pool, m, width,
               [&](std::int64_t row) { kernels.layer_norm(x + row * ldx, width, weight, bias, eps, out + row * ldo); });
}

void rotary(ThreadPool& pool, Isa isa, float* x, std::int64_t m, int heads, int head_dim, int rotary_dim,
            std::int64_t ldx, const std::int32_t* positions, const float* cos_sin) {
  CHECK(rotary_dim % 2 == 0 && rotary_dim <= head_dim, "rotary_dim {}, head_dim {}", rotary_dim, head_dim);
  const auto& kernels = elementwise_kernels(isa);
  const int half = rotary_dim / 2;
  for_each_row(pool, m, std::int64_t{heads} * head_dim, [&](std::int64_t row) {
    const float* cosines = cos_sin + std::int64_t{positions[row]} * rotary_dim;
    float* head = x + row * ldx;
    for (int i = 0; i < heads; ++i, head += head_dim) kernels.rotary(head, half, cosines, cosines + half);
  });
}

void silu_mul(ThreadPool& pool, Isa isa, const float* gate_up, std::int64_t m, std::int64_t width, std::int64_t ldx,
              float* out, std::int64_t ldo) {
  activate_mul(pool, isa, Activation::silu, gate_up, m, width, ldx, out, ldo);
}

void activate_mul(ThreadPool& pool, Isa isa, Activation activation, const float* gate_up, std::int64_t m,
                  std::int64_t width, std::int64_t ldx, float* out, std::int64_t ldo) {
  const GatedRow gated = elementwise_kernels(isa).gated(activation);
  for_each_row(pool, m, width, [&](std::int64_t row) {
    gated(gate_up + row * ldx, gate_up + row * ldx + width, width, out + row * ldo);
  });
}

void gelu_tanh(ThreadPool& pool, Isa isa, float* x, std::int64_t m, std::int64_t width, std::int64_t ldx) {
  const auto& kernels = elementwise_kernels(isa);
  for_each_row(pool, m, width, [&](std::int64_t row) { kernels.gelu(x + row * ldx, width); });
}

void softcap(ThreadPool& pool, Isa isa, float cap, float* x, std::int64_t m, std::int64_t width, std::int64_t ldx) {
  const auto& kernels = elementwise_kernels(isa);
  for_each_row(pool, m, width, [&](std::int64_t row) { kernels.softcap(cap, x + row * ldx, width); });
}

void add_gated(ThreadPool& pool, Isa isa, const float* gate, std::int64_t ldg, const float* x, std::int64_t m,
               std::int64_t width, std::int64_t ldx, float* y, std::int64_t ldy) {
  const auto& kernels = elementwise_kernels(isa);
  for_each_row(pool, m, width,
               [&](std::int64_t row) { kernels.add_gated(gate[row * ldg], x + row * ldx, width, y + row * ldy); });
}

void add(ThreadPool& pool, const float* x, std::int64_t m, std::int64_t width, std::int64_t ldx, float* y,
         std::int64_t ldy) {
  for_each_row(pool, m, width, [&](std::int64_t row) {
    for (std::int64_t i = 0; i < width; ++i) y[row * ldy + i] += x[row * ldx + i];
  });
}

}  // namespace chorus
