#include "layers/moe.h"

#include <algorithm>

namespace chorus {

// The rows of all experts one after another: expert e computes slots [first[e], first[e + 1]). Everything lies in scratch.
struct MoeLayer::Dispatch {
  ExpertChoice* choices = nullptr;     // [rows, k], ascending expert id
  std::int64_t* slot_of = nullptr;     // [rows, k]: where that choice's output is
  std::int64_t* first = nullptr;       // [experts + 1]
};

MoeLayer::MoeLayer(Parameters& parameters, TensorParallel tp, const std::string& prefix, const GatedMlp::Names& expert_names,
                   const Shape& shape)
    : shape_(shape) {
  // The router decides which experts run: it stays in float32, where a rounding can flip fewer choices, and is replicated.
  router_ = parameters.add_linear({shape.experts, shape.hidden_size, 1},
                                  {{prefix + ".gate.weight", {shape.experts, shape.hidden_size}, 0, shape.experts, 0}}, DType::float32);
  for (int e = 0; e < shape.experts; ++e) {
    const std::string expert = prefix + ".experts." + std::to_string(e) + ".";
    experts_.emplace_back(parameters, tp, GatedMlp::Names{expert + expert_names.gate, expert + expert_names.up, expert + expert_names.down},
                          shape.hidden_size, shape.intermediate_size, false);
  }
}

MoeLayer::Dispatch MoeLayer::dispatch(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t rows) const {
  const std::int64_t k = shape_.experts_per_token;
  Dispatch plan;
  plan.choices = context.scratch.take_array<ExpertChoice>(rows * k);
  plan.slot_of = context.scratch.take_array<std::int64_t>(rows * k);
  plan.first = context.scratch.take_array<std::int64_t>(shape_.experts + 1);
  float* logits = context.scratch.take_array<float>(rows * shape_.experts);
  std::int64_t* next = context.scratch.take_array<std::int64_t>(shape_.experts);

  linear(context.pool, context.scratch, parameters.linear(router_), x, rows, shape_.hidden_size, logits, shape_.experts, {});
  context.pool.for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      route(shape_.routing, {logits + row * shape_.experts, static_cast<std::size_t>(shape_.experts)}, shape_.jitter,
            {plan.choices + row * k, static_cast<std::size_t>(k)});
    }
  });
  std::fill_n(next, shape_.experts, 0);
  for (std::int64_t i = 0; i < rows * k; ++i) ++next[plan.choices[i].expert];
  plan.first[0] = 0;
  for (std::int64_t e = 0; e < shape_.experts; ++e) {
    plan.first[e + 1] = plan.first[e] + next[e];
    next[e] = plan.first[e];
  }
  for (std::int64_t i = 0; i < rows * k; ++i) plan.slot_of[i] = next[plan.choices[i].expert]++;
  return plan;
}

Result<void> MoeLayer::add_to(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t rows,
                              float* residual) const {
  const Scratch::Scope scope(context.scratch);
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  const Dispatch plan = dispatch(context, parameters, x, rows);
  float* inputs = context.scratch.take_array<float>(rows * k * width);
  float* outputs = context.scratch.take_array<float>(rows * k * width);

  context.pool.for_range(rows * k, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) std::copy_n(x + i / k * width, width, inputs + plan.slot_of[i] * width);
  });
  for (std::int64_t e = 0; e < shape_.experts; ++e) {
    const std::int64_t first = plan.first[e], count = plan.first[e + 1] - first;
    if (count == 0) continue;
    CHORUS_TRY_VOID(experts_[static_cast<std::size_t>(e)].forward(context, parameters, inputs + first * width, count, outputs + first * width));
  }
  context.pool.for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t i = 0; i < width; ++i) {
        float sum = 0;
        for (std::int64_t c = row * k; c < (row + 1) * k; ++c) sum += plan.choices[c].weight * outputs[plan.slot_of[c] * width + i];
        residual[row * width + i] += sum;
      }
    }
  });
  return {};
}

}  // namespace chorus
