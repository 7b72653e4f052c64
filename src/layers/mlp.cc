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
                   int intermediate_size, bool bias)
    : hidden_size_(hidden_size),
      gate_up_(parameters, tp, hidden_size, gate_of(names, intermediate_size, bias),
               up_of(names, intermediate_size, bias)),
      down_(parameters, tp, {names.down, hidden_size, bias}, intermediate_size, intermediate_size) {}

Result<void> GatedMlp::add_to(const LayerContext& context, const Parameters& parameters, const float* x,
                              std::int64_t rows, float* residual) const {
  const Scratch::Scope scope(context.scratch);
  const LinearInput activated = gate_up_.forward(context, parameters, {x, rows, hidden_size_}, down_);
  return down_.add_to(context, parameters, activated, residual, hidden_size_);
}

void GatedMlp::partial(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t rows,
                       float* out) const {
  const Scratch::Scope scope(context.scratch);
  const LinearInput activated = gate_up_.forward(context, parameters, {x, rows, hidden_size_}, down_);
  down_.partial(context, parameters, activated, out, hidden_size_);
}

}  // namespace chorus
