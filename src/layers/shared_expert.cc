#include "layers/shared_expert.h"

namespace chorus {

SharedMoe::SharedMoe(Parameters& parameters, TensorParallel tp, const std::string& prefix, MoeLayer experts,
                     std::int64_t hidden_size, const Shared& shared)
    : experts_(std::move(experts)),
      shared_(parameters, tp,
              {prefix + "." + shared.name + ".gate_proj", prefix + "." + shared.name + ".up_proj",
               prefix + "." + shared.name + ".down_proj"},
              hidden_size, shared.intermediate_size, false),
      gated_(shared.gated) {
  if (!gated_) return;
  gate_ = parameters.add_linear(
      {1, hidden_size, 1}, {{prefix + "." + shared.name + "_gate.weight", {1, hidden_size}, 0, 1, 0}}, DType::float32);
}

Result<void> SharedMoe::add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                               const View& residual) const {
  CHORUS_TRY_VOID(experts_.add_to(context, parameters, x, residual));
  if (!gated_) return shared_.add_to(context, parameters, x, residual);
  CpuDevice& cpu = context.cpu();
  const Scratch::Scope scope(cpu.scratch());
  const View sum = cpu.take(DType::float32, residual.rows, residual.columns);
  fill_zero(cpu, sum);
  CHORUS_TRY_VOID(shared_.add_to(context, parameters, x, sum));
  const View gate = cpu.take(DType::float32, residual.rows, 1);
  linear(cpu, parameters.linear(gate_), x, gate);
  add_gated(cpu.pool(), cpu.isa(), gate.floats(), gate.stride, sum.floats(), sum.rows, sum.columns, sum.stride,
            residual.floats(), residual.stride);
  return {};
}

}  // namespace chorus
