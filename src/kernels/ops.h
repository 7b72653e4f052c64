// The operations of a model, on whatever device: op(device, views ...). Each has a twin for CPUs (the header of its
// name without _cuda: linear.h, elementwise.h, attention.h) and one for GPUs (*_cuda.h), called side by side in ops.cc.
// On a GPU they are queued and return at once (Device::finish).
//
// What a row gets is a function of that row alone, on both; a GPU's bits are of another profile than a CPU's
// (docs/numerics.md, docs/cuda.md). Widths and dtypes are checked: a view that does not fit ends the process.
#pragma once

#include <memory>

#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/step_input.h"
#include "tensor/device.h"

namespace chorus {

// A CPU with the pool's threads, or GPU number `gpu` (of those that CUDA shows this process). `pool` outlives it.
Result<std::unique_ptr<Device>> make_device(Isa isa, ThreadPool& pool, int gpu = 0);

// Brings what the host laid out to the device; before the step's first operation.
void upload(Device& device, StepInput* step, int block_size);

// ---- matrix products ----

// x of a product: rows of device.product_dtype(), or what gated_input() made for one matrix.
struct ProductInput {
  View rows;
  const std::byte* prepared = nullptr;  // not null: rows.rows of them, as the CPU kernel of that matrix reads them
};
// Rows of float32 as x of a product: themselves, or rounded, in memory of the scratch's scope around the call.
ProductInput product_input(Device& device, const View& x);
// y of linear(), from the scratch: rows of float32 as wide as `weight` is packed.
View take_product(Device& device, const PackedLinear& weight, std::int64_t rows);
// y = W x by the rules of linear.h and linear_cuda.h.
void linear(Device& device, const PackedLinear& weight, const ProductInput& x, const View& y,
            const LinearEpilogue& epilogue = {});
// activation(gate) * up of [gate, up] = W x + bias, as x of the product with `next`; in memory of the scratch's scope
// around the call. gate_up.shape.gated_segments is next.shape.segments; bias is packed as its rows are. On GPUs: silu
// and gelu_tanh.
ProductInput gated_input(Device& device, const PackedLinear& gate_up, const float* bias, const ProductInput& x,
                         const PackedLinear& next, Activation activation = Activation::silu);

// ---- rows ----

// Rows [first_row, first_row + weight.shape.rows) of a vocabulary, packed (tied to the output matrix) or plain.
struct EmbeddingRows {
  PackedLinear weight;
  bool is_packed = false;
  std::int64_t first_row = 0;
};
// out[i] = the row of step.tokens[i]; zeros where it is not among them. out: float32.
void look_up(Device& device, const EmbeddingRows& embedding, const StepInput& step, const View& out);
// out[i] = from[step.wanted[first + i]], float32.
void gather_wanted(Device& device, const View& from, const StepInput& step, std::int64_t first, const View& out);

// elementwise.h's norms.
struct NormWeights {
  const float* weight = nullptr;
  bool is_layer_norm = false;
  const float* bias = nullptr;  // of a layer norm, may be null
};
// x: float32. out: float32 (x itself, or another) or product_dtype().
void norm(Device& device, const View& x, const NormWeights& weights, float eps, const View& out);
// RMS norm of each head of a row in place, float32.
void norm_heads(Device& device, const View& x, int heads, const float* weight, float eps);

// out[i] += row step.positions[i] of `table`, float32 or bfloat16 as the device keeps tables.
void add_positions(Device& device, const PackedLinear& table, const StepInput& step, const View& out);

void gelu_tanh(Device& device, const View& x);           // in place, float32
void softcap(Device& device, float cap, const View& x);  // in place, float32

void fill_zero(Device& device, const View& x);
void scale(Device& device, float factor, const View& x);                      // x *= factor
void add_scaled(Device& device, const View& x, float factor, const View& y);  // y += factor * x

// For each row of logits the lowest index of the largest; -1 where there is none (SampleOutput::not_a_number). Waits;
// the host's until the next read(). On GPUs: on CPUs it is the Sampler's to do.
const std::int32_t* argmax(Device& device, const View& logits);

// ---- attention ----

// The projections of a step's rows: queries of `heads` heads, then keys, then values, of cache.layout's.
struct QkvRows {
  View qkv;  // float32
  int heads = 0;
};
// elementwise.h's rotary: its table, in the device's memory.
struct Turning {
  int rotary_dim = 0;
  const float* cos_sin = nullptr;
};
// Turns queries and keys by their positions, in place.
void rotary(Device& device, const QkvRows& rows, const KvLayout& layout, const StepInput& step, const Turning& turning);
// Turns them if turning.rotary_dim > 0, then writes keys and values to the cache. Returns the queries as attention()
// reads them: a part of rows.qkv, or rounded in memory of the scratch's scope around the call.
View kv_write(Device& device, const KvCacheLayer& cache, const QkvRows& rows, const StepInput& step,
              const Turning& turning);
// out: [rows, heads * head_dim] of product_dtype(). The cache holds all keys (share.count is 1).
void attention(Device& device, const KvCacheLayer& cache, const StepInput& step, const AttentionParams& params,
               const View& q, const View& out);

}  // namespace chorus
