// Self-attention of one layer: qkv projection, optional q/k norm, rotary, KV write, paged attention, output projection.
#pragma once

#include <optional>
#include <string>

#include "kernels/attention.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "layers/rotary_table.h"

namespace chorus {

// RMS norm over each head of q and of k: the names behind the attention's prefix, empty for none.
struct HeadNorms {
  std::string q, k;
  bool before_rotary = true;
};

class Attention {
 public:
  struct Shape {
    std::int64_t hidden_size = 0;
    int heads = 0, kv_heads = 0, head_dim = 0;
    bool qkv_bias = false, output_bias = false;
    bool fused_qkv = false;  // in the checkpoint
    double scale = 0;        // of q k; 0: 1 / sqrt(head_dim)
    int window = 0;          // 0: all keys
    bool is_rotary = true;   // else q and k do not turn
    HeadNorms head_norms = {};
    double norm_eps = 1e-6;
  };
  // `prefix`: "model.layers.0.self_attn"
  Attention(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape);

  int kv_heads() const { return qkv_.kv_heads(); }  // of this rank

  // x: [rows, hidden] (normed); the result is added to `residual` [rows, hidden].
  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const RotaryTable& rotary_table,
                      const KvCacheLayer& cache, const StepInput& step, const ProductInput& x,
                      const View& residual) const;

 private:
  void norm_queries_and_keys(const LayerContext& context, const Parameters& parameters, const View& qkv) const;
  // The keys may be spread over the context-parallel ranks: then the states of their partitions are gathered on all.
  Result<void> attend(const LayerContext& context, const KvCacheLayer& cache, const StepInput& step, const View& q,
                      const View& mixed) const;

  Shape shape_;
  QkvParallelLinear qkv_;
  RowParallelLinear output_;
  std::optional<Norm> q_norm_, k_norm_;
};

}  // namespace chorus
