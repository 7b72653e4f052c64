// The small row-wise operations of a transformer. All float32, row-major; each row is computed by the same operations
// in the same order whatever m and the number of threads (a row is never split over threads).
#pragma once

#include <cstdint>

#include "kernels/isa.h"
#include "kernels/thread_pool.h"

namespace chorus {

enum class Activation : std::uint8_t {
  silu,       // x / (1 + e^-x)
  gelu_tanh,  // x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): Hendrycks and Gimpel, "Gaussian error linear units",
              // 2016, section 2
  // gpt-oss: (up + 1) gate / (1 + e^(-1.702 gate)), gate at most 7, up between -7 and 7.
  clamped_swish,
};

// out = x / sqrt(mean(x^2) + eps) * weight. Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, eq. 4.
// The square sum is in float32, 16 interleaved partial sums combined by a fixed tree, in every instruction set. x, out:
// [m, width] with row strides; out may be x. weight: [width].
void rms_norm(ThreadPool& pool, Isa isa, const float* x, std::int64_t m, std::int64_t width, std::int64_t ldx,
              const float* weight, float eps, float* out, std::int64_t ldo);

// The same over each head of a row: x is [m, heads, head_dim] in place, row stride ldx, weight [head_dim] (Qwen3's q/k
// norm).
void rms_norm_heads(ThreadPool& pool, Isa isa, float* x, std::int64_t m, int heads, int head_dim, std::int64_t ldx,
                    const float* weight, float eps);

// out = (x - mean) / sqrt(variance + eps) * weight + bias (Ba et al., "Layer Normalization", 2016). bias may be null.
void layer_norm(ThreadPool& pool, Isa isa, const float* x, std::int64_t m, std::int64_t width, std::int64_t ldx,
                const float* weight, const float* bias, float eps, float* out, std::int64_t ldo);

// Rotary embedding in the "rotate half" pairing of Hugging Face's Llama (Su et al., "RoFormer", 2021, section 3.4.2):
// of each head, elements i and i + rotary_dim / 2 turn by the angle of positions[row] and frequency i. cos_sin:
// [positions_max, rotary_dim]: rotary_dim / 2 cosines, then as many sines. In place; x: [m, heads * head_dim].
void rotary(ThreadPool& pool, Isa isa, float* x, std::int64_t m, int heads, int head_dim, int rotary_dim,
            std::int64_t ldx, const std::int32_t* positions, const float* cos_sin);

// out[i] = silu(gate[i]) * up[i]; gate_up: [m, 2 * width] with gate first; out: [m, width].
void silu_mul(ThreadPool& pool, Isa isa, const float* gate_up, std::int64_t m, std::int64_t width, std::int64_t ldx,
              float* out, std::int64_t ldo);

// out[i] = activation(gate[i]) * up[i], as silu_mul() has them.
void activate_mul(ThreadPool& pool, Isa isa, Activation activation, const float* gate_up, std::int64_t m,
                  std::int64_t width, std::int64_t ldx, float* out, std::int64_t ldo);

// x = gelu_tanh(x), in place; x: [m, width].
void gelu_tanh(ThreadPool& pool, Isa isa, float* x, std::int64_t m, std::int64_t width, std::int64_t ldx);

// x = cap tanh(x / cap), in place (Gemma 2: Riviere et al., 2024, section 2); x: [m, width].
void softcap(ThreadPool& pool, Isa isa, float cap, float* x, std::int64_t m, std::int64_t width, std::int64_t ldx);

// y[row] += x[row] / (1 + e^-gate[row]); y and x: [m, width], gate: [m], `ldg` apart.
void add_gated(ThreadPool& pool, Isa isa, const float* gate, std::int64_t ldg, const float* x, std::int64_t m,
               std::int64_t width, std::int64_t ldx, float* y, std::int64_t ldy);

// y += x, y and x: [m, width].
void add(ThreadPool& pool, const float* x, std::int64_t m, std::int64_t width, std::int64_t ldx, float* y,
         std::int64_t ldy);

}  // namespace chorus
