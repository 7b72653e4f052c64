// Self-attention of one layer: qkv projection, optional q/k norm, rotary, KV write, paged attention, output projection.
#pragma once

#include <optional>
#include <string>

#include "kernels/attention.h"
#include "layers/kv_cache_spec.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "layers/rotary_table.h"

namespace chorus {

// RMS norm of q and of k: the names behind the attention's prefix, empty for none.
struct HeadNorms {
  std::string q, k;
  enum class Of : std::uint8_t { each_head, each_head_turned, all_heads } of = Of::each_head;
  NormKind kind = NormKind::rms;
};

// attention() of ops.h. The keys may be spread over the context-parallel ranks: then the states of their partitions are
// gathered on all.
Result<void> attend(const LayerContext& context, const KvCacheLayer& cache, const StepInput& step,
                    const AttentionParams& params, const View& q, const View& mixed);

class Attention {
 public:
  struct Shape {
    std::int64_t hidden_size = 0;
    int heads = 0, kv_heads = 0, head_dim = 0;
    bool qkv_bias = false, output_bias = false;
    std::string q = "q_proj", k = "k_proj", v = "v_proj", output = "o_proj";  // q, k, v alike: one matrix
    bool transposed = false;                                                  // in the checkpoint: [inputs, outputs]
    HeadRows head_rows = {};                                                  // of q and k
    double scale = 0;                                                         // of q k; 0: 1 / sqrt(head_dim)
    int window = 0;                                                           // 0: all keys
    bool is_rotary = true;                                                    // else q and k do not turn
    int rotary_table = 0;                                                     // which of the model's
    double softcap = 0;                                                       // of the scores; 0: none
    std::string sinks = {};  // a score of each head that has no value: the name behind the prefix
    bool gated = false;      // each head of q_proj is followed by one that gates the head's result by its sigmoid
    HeadNorms head_norms = {};
    double norm_eps = 1e-6;
  };
  // `prefix`: "model.layers.0.self_attn"
  Attention(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape);

  KvCacheSpec kv() const { return {qkv_.kv_heads(), shape_.head_dim, shape_.window}; }  // of this rank
  // What of it no GPU computes; empty: it does.
  std::string needs_cpu() const {
    if (shape_.softcap != 0) return "capped attention scores";
    if (shape_.gated) return "gated heads";
    return shape_.sinks.empty() ? "" : "attention sinks";
  }

  // x: [rows, hidden] (normed); the result is added to `residual` [rows, hidden].
  Result<void> add_to(const LayerContext& context, const Parameters& parameters,
                      std::span<const RotaryTable> rotary_tables, const KvCacheLayer& cache, const StepInput& step,
                      const ProductInput& x, const View& residual) const;

 private:
  Result<void> norm_queries_and_keys(const LayerContext& context, const Parameters& parameters, const View& qkv) const;
  // `own`: this rank's of the `heads` heads that are normed as one row.
  Result<void> norm_all_heads(const LayerContext& context, const Parameters& parameters, const Norm& norm, int heads,
                              const View& own) const;
  void gate(const LayerContext& context, const Parameters& parameters, const ProductInput& x, const View& mixed) const;
  AttentionParams params(const Parameters& parameters) const;

  Shape shape_;
  QkvParallelLinear qkv_;
  RowParallelLinear output_;
  std::optional<Norm> q_norm_, k_norm_;
  ParameterId sinks_ = 0, gate_ = 0;
};

}  // namespace chorus
