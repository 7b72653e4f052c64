#include "layers/mlp.h"

#include "kernels/elementwise.h"

namespace chorus {

GatedMlp::GatedMlp(Parameters& parameters, TensorParallel tp, const Names& names, std::int64_t hidden_size,
                   int intermediate_size, bool bias)
    : hidden_size_(hidden_size),
      gate_up_(parameters, tp, hidden_size,
               {{names.gate, intermediate_size, bias}, {names.up, intermediate_size, bias}}),
      down_(parameters, tp, {names.down, hidden_size, bias}, intermediate_size, intermediate_size) {}

void GatedMlp::activate(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t rows,
                        float* activated) const {
  const Scratch::Scope scope(context.scratch);
  const std::int64_t width = gate_up_.rows() / 2;
  float* gate_up = context.scratch.take_array<float>(rows * 2 * width);
  gate_up_.forward(context, parameters, x, rows, hidden_size_, gate_up, 2 * width);
  silu_mul(context.pool, context.isa, gate_up, rows, width, 2 * width, activated, width);
}

Result<void> GatedMlp::add_to(const LayerContext& context, const Parameters& parameters, const float* x,
                              std::int64_t rows, float* residual) const {
  const Scratch::Scope scope(context.scratch);
  const std::int64_t width = gate_up_.rows() / 2;
  float* activated = context.scratch.take_array<float>(rows * width);
  activate(context, parameters, x, rows, activated);
  return down_.add_to(context, parameters, activated, rows, width, residual, hidden_size_);
}

void GatedMlp::partial(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t rows,
                       float* out) const {
  const Scratch::Scope scope(context.scratch);
  const std::int64_t width = gate_up_.rows() / 2;
  float* activated = context.scratch.take_array<float>(rows * width);
  activate(context, parameters, x, rows, activated);
  down_.partial(context, parameters, activated, rows, width, out, hidden_size_);
}

}  // namespace chorus
