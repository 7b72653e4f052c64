// The gated delta net (Yang et al., "Gated delta networks", 2024, section 3): attention whose memory of a sequence is a
// matrix for each head, which forgets by a gate and is corrected towards each value. A short convolution over positions
// stands before it (Qwen3-Next).
//
// Rows of a sequence are computed one after the other, so that chunks and batches change no bit. The state behind a
// position lies in the KV memory: a block has that behind the last of its positions that was computed, so what begins
// at a cached block finds it there.
#pragma once

#include <string>

#include "layers/kv_cache_spec.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "layers/rotary_table.h"

namespace chorus {

class DeltaNet {
 public:
  struct Shape {
    std::int64_t hidden_size = 0;
    int key_heads = 0, value_heads = 0;  // value_heads is a multiple of key_heads
    int key_dim = 0, value_dim = 0;      // of a head
    int kernel = 4;                      // positions that the convolution sees
    double norm_eps = 1e-6;
    bool has_final_decays = false;  // A_log is -exp(A_log) in the checkpoint
  };
  // `prefix`: "model.layers.0.linear_attn". Value heads are cut over the group, key heads too, or replicated.
  DeltaNet(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape);

  KvCacheSpec kv() const { return {.state_floats = state_floats()}; }
  std::string needs_cpu() const { return "gated delta nets"; }

  // On CPUs. x: [rows, hidden] (normed); the result is added to `residual` [rows, hidden].
  Result<void> add_to(const LayerContext& context, const Parameters& parameters,
                      std::span<const RotaryTable> rotary_tables, const KvCacheLayer& cache, const StepInput& step,
                      const ProductInput& x, const View& residual) const;

 private:
  struct Rows;
  struct Slices;  // of this rank in the checkpoint's tensors
  std::int64_t channels() const {
    return std::int64_t{2} * keys_ * shape_.key_dim + std::int64_t{values_} * shape_.value_dim;
  }
  std::int64_t convolution_floats() const { return (shape_.kernel - 1) * channels(); }
  std::int64_t state_floats() const {
    return convolution_floats() + std::int64_t{values_} * shape_.key_dim * shape_.value_dim;
  }
  void declare_inputs(Parameters& parameters, const std::string& prefix, const Slices& slices);
  void declare_convolution(Parameters& parameters, const std::string& prefix, const Slices& slices);
  void convolve(const Parameters& parameters, const Rows& rows, const KvCacheLayer& cache,
                const AttentionSequence& sequence, std::int64_t channel) const;
  void run_head(const Parameters& parameters, const Rows& rows, const KvCacheLayer& cache,
                const AttentionSequence& sequence, int head) const;
  void finish_row(const Parameters& parameters, const Rows& rows, std::int64_t row, int head, float* out) const;
  void gather_channels(const Rows& rows) const;
  float* state_in(const KvCacheLayer& cache, const AttentionSequence& sequence, std::int32_t position) const;

  Shape shape_;
  int keys_, values_;  // heads of this rank
  ParameterId qkvz_ = 0, ba_ = 0, convolution_ = 0, a_log_ = 0, dt_bias_ = 0, norm_ = 0;
  RowParallelLinear output_;
};

}  // namespace chorus
