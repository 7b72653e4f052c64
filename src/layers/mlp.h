// The gated feed-forward layer: down(silu(gate(x)) * up(x)) (Shazeer, "GLU variants improve transformer", 2020,
// SwiGLU).
#pragma once

#include <string>

#include "layers/linear.h"

namespace chorus {

class GatedMlp {
 public:
  struct Names {
    std::string gate, up, down;  // prefixes of NAME.weight; gate and up alike: one matrix, gate's rows first
  };
  GatedMlp(Parameters& parameters, TensorParallel tp, const Names& names, std::int64_t hidden_size,
           int intermediate_size, bool bias);

  // The result for x [rows, hidden] is added to residual [rows, hidden].
  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                      const View& residual) const;
  // out = this rank's part of the result, without bias on `down` (experts have none): no collective. The caller adds
  // the parts by all_reduce_tree(); of a layer declared over one rank it is the whole result.
  void partial(const LayerContext& context, const Parameters& parameters, const ProductInput& x, const View& out) const;

 private:
  GateUpParallelLinear gate_up_;
  RowParallelLinear down_;
};

}  // namespace chorus
