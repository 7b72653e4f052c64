#include "layers/mlp.h"

namespace chorus {

namespace {

MatrixName gate_of(const GatedMlp::Names& names, int rows, bool bias) {
  return {names.gate, rows, bias, 0, names.gate == names.up ? 2 * rows : rows};
}

MatrixName up_of(const GatedMlp::Names& names, int rows, bool bias) {
  const bool fused = names.gate == names.up;
  return {names.up, rows, bias, fused ? rows : 0, fused ? 2 * rows : rows};
}

}  // namespace

GatedMlp::GatedMlp(Parameters& parameters, TensorParallel tp, const Names& names, std::int64_t hidden_size,
                   int intermediate_size, bool bias, Activation activation)
    : gate_up_(parameters, tp, hidden_size, gate_of(names, intermediate_size, bias),
               up_of(names, intermediate_size, bias), reduction_segments(intermediate_size) / tp.size, activation),
      down_(parameters, tp, {names.down, hidden_size, bias}, intermediate_size, intermediate_size) {}

GatedMlp::GatedMlp(Parameters& parameters, TensorParallel tp, const MatrixName& gate, const MatrixName& up,
                   const MatrixName& down, std::int64_t hidden_size, int intermediate_size, Activation activation)
    : gate_up_(parameters, tp, hidden_size, gate, up, reduction_segments(intermediate_size) / tp.size, activation),
      down_(parameters, tp, down, intermediate_size, intermediate_size) {}

Result<void> GatedMlp::add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                              const View& residual) const {
  const Scratch::Scope scope(context.device.scratch());
  return down_.add_to(context, parameters, gate_up_.forward(context, parameters, x, down_), residual);
}

void GatedMlp::partial(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                       const View& out) const {
  const Scratch::Scope scope(context.device.scratch());
  down_.partial(context, parameters, gate_up_.forward(context, parameters, x, down_), out);
}

PlainMlp::PlainMlp(Parameters& parameters, TensorParallel tp, const std::string& up, const std::string& down,
                   std::int64_t hidden_size, int intermediate_size, bool bias, bool transposed)
    : up_(parameters, tp, {up, intermediate_size, bias, 0, 0, transposed}, hidden_size),
      down_(parameters, tp, {down, hidden_size, bias, 0, 0, transposed}, intermediate_size, intermediate_size),
      fills_eights_(intermediate_size / reduction_segments(intermediate_size) % 8 == 0) {}

Result<void> PlainMlp::add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                              const View& residual) const {
  const Scratch::Scope scope(context.device.scratch());
  const View inner = up_.forward(context, parameters, x);
  gelu_tanh(context.device, inner);
  return down_.add_to(context, parameters, product_input(context.device, inner), residual);
}

}  // namespace chorus
