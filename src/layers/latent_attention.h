// Multi-head latent attention (DeepSeek-V2, 2024, section 2.1): keys and values of all heads come from one narrow row a
// token, and a part of each key, which turns, is the same for all heads. The KV cache has keys and values as the heads
// read them (expanded), values filled up with zeros to the width of a key.
#pragma once

#include <optional>
#include <string>

#include "layers/kv_cache_spec.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "layers/rotary_table.h"

namespace chorus {

class LatentAttention {
 public:
  struct Shape {
    std::int64_t hidden_size = 0;
    int heads = 0;
    int query_rank = 0;                                // of the row that queries come from; 0: they come from x
    int rank = 0;                                      // of the row that keys and values come from
    int still_dim = 0, rotary_dim = 0, value_dim = 0;  // of a head: what does not turn, what does, values
    bool pairs = true;                                 // neighbours turn together, in the checkpoint
    bool bias = false;                                 // of the projections to narrow rows and of the output
    double scale = 0;                                  // of q k
    double norm_eps = 1e-6;
  };
  // `prefix`: "model.layers.0.self_attn"
  LatentAttention(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape);

  KvCacheSpec kv() const { return {heads_, key_dim(), 0}; }
  std::string needs_cpu() const { return "latent attention"; }

  // On CPUs. As Attention::add_to().
  Result<void> add_to(const LayerContext& context, const Parameters& parameters,
                      std::span<const RotaryTable> rotary_tables, const KvCacheLayer& cache, const StepInput& step,
                      const ProductInput& x, const View& residual) const;

 private:
  int key_dim() const { return shape_.rotary_dim + shape_.still_dim; }
  View queries(const LayerContext& context, const Parameters& parameters, const ProductInput& x) const;
  // [rows, 3 heads key_dim]: queries, keys and values of this rank's heads side by side, in the scratch.
  View expand(const LayerContext& context, const Parameters& parameters, const ProductInput& x) const;

  Shape shape_;
  int heads_;                                       // of this rank
  std::optional<ColumnParallelLinear> query_down_;  // whole on every rank
  std::optional<Norm> query_norm_;
  ColumnParallelLinear query_;
  ColumnParallelLinear down_;  // whole on every rank: what turns, then the row
  Norm norm_;
  ColumnParallelLinear up_;  // of each head: what does not turn of its key, then its value
  RowParallelLinear output_;
};

}  // namespace chorus
