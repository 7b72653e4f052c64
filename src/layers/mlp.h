// Feed-forward layers: the gated one, down(activation(gate(x)) * up(x)) (Shazeer, "GLU variants improve transformer",
// 2020), and the plain one of the first transformers.
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
           int intermediate_size, bool bias, Activation activation = Activation::silu);
  // Of an expert whose matrices lie with those of the others, its down without a bias.
  GatedMlp(Parameters& parameters, TensorParallel tp, const MatrixName& gate, const MatrixName& up,
           const MatrixName& down, std::int64_t hidden_size, int intermediate_size, Activation activation);

  // The result for x [rows, hidden] is added to residual [rows, hidden].
  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                      const View& residual) const;
  // out = this rank's part of the result, without bias on `down` (experts have none): no collective. The caller adds
  // the parts by all_reduce_tree(); of a layer declared over one rank it is the whole result.
  void partial(const LayerContext& context, const Parameters& parameters, const ProductInput& x, const View& out) const;
  std::string needs_cpu() const { return {}; }

 private:
  GateUpParallelLinear gate_up_;
  RowParallelLinear down_;
};

// down(gelu_tanh(up(x))), with biases.
class PlainMlp {
 public:
  // `up` and `down`: prefixes of NAME.weight and NAME.bias; `transposed`: as GPT-2 has them, [inputs, outputs].
  PlainMlp(Parameters& parameters, TensorParallel tp, const std::string& up, const std::string& down,
           std::int64_t hidden_size, int intermediate_size, bool bias, bool transposed = false);

  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                      const View& residual) const;
  // On GPUs the parts of the next product are whole eights of columns.
  std::string needs_cpu() const { return fills_eights_ ? "" : "plain feed-forward layers of this width"; }

 private:
  ColumnParallelLinear up_;
  RowParallelLinear down_;
  bool fills_eights_;
};

}  // namespace chorus
