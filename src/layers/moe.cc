#include "layers/moe.h"

#include <numeric>

#include "base/check.h"
#include "kernels/elementwise.h"
#include "layers/expert_slots.h"
#include "layers/moe_buckets.h"

namespace chorus {
namespace {

// From here on it pays to exchange twice and send less: docs/decisions/007-moe-reduction.md.
constexpr std::int64_t scattered_floats_min = 65'536;

}  // namespace

// The router decides which experts run: it stays in float32, where a rounding can flip fewer choices, and is
// replicated.
void MoeLayer::declare_router(Parameters& parameters, const std::string& prefix) {
  const std::int64_t experts = shape_.experts, width = shape_.hidden_size;
  const std::string name = prefix + "." + shape_.router_name;
  router_ =
      parameters.add_linear({experts, width, 1}, {{name + ".weight", {experts, width}, 0, experts, 0}}, DType::float32);
  if (shape_.router_bias) router_bias_ = parameters.add_vector(experts, {{name + ".bias", {experts}, 0, experts, 0}});
  if (!shape_.correction.empty()) {
    correction_ = parameters.add_vector(experts, {{prefix + "." + shape_.correction, {experts}, 0, experts, 0}});
  }
  if (!shape_.stacked) return;
  std::vector<ParameterSource> sources;
  for (int expert = 0; expert < shape_.experts; ++expert)
    sources.push_back({prefix + ".experts.down_proj_bias", {experts, width}, 0, width, expert, {}, true});
  output_biases_ = parameters.add_vector(experts * width, std::move(sources));
}

GatedMlp MoeLayer::declare_expert(Parameters& parameters, TensorParallel tp, const std::string& prefix,
                                  const GatedMlp::Names& names, int expert) const {
  const std::int64_t hidden = shape_.hidden_size, width = shape_.intermediate_size;
  const std::string all = prefix + ".experts.";
  if (shape_.stacked) {
    MatrixName gate{all + names.gate, width, true, 0, 2 * width, true, shape_.experts, expert, 2}, up = gate;
    up.first_row = 1;
    return {parameters,
            tp,
            gate,
            up,
            {all + names.down, hidden, false, 0, 0, true, shape_.experts, expert},
            hidden,
            shape_.intermediate_size,
            shape_.activation};
  }
  const std::string name = all + std::to_string(expert) + ".";
  return {parameters,
          tp,
          GatedMlp::Names{name + names.gate, name + names.up, name + names.down},
          hidden,
          shape_.intermediate_size,
          false,
          shape_.activation};
}

MoeLayer::MoeLayer(Parameters& parameters, TensorParallel tp, const ExpertParallel& ep, const std::string& prefix,
                   const GatedMlp::Names& expert_names, const Shape& shape)
    : shape_(shape), ranks_(ep.size) {
  declare_router(parameters, prefix);
  const auto declare = [&](Parameters& where, TensorParallel cut, int expert) {
    experts_.push_back(declare_expert(where, cut, prefix, expert_names, expert));
  };
  if (ep.size == 1) {
    for (int expert = 0; expert < shape.experts; ++expert) declare(parameters, tp, expert);
    return;
  }
  placement_ =
      ExpertPlacement::create(ep.strategy, shape.experts, ep.size, ep.slots != nullptr ? ep.slots->redundant() : 0);
  Parameters& where = ep.slots != nullptr ? ep.slots->parameters() : parameters;
  const std::size_t begin = where.arena_bytes();
  for (const int expert : placement_.experts_of(ep.rank)) declare(where, {}, expert);
  if (ep.slots != nullptr) moving_layer_ = ep.slots->add_layer(placement_, ep.rank, begin);
}

ExpertChoice* MoeLayer::choose(const LayerContext& context, const Parameters& parameters, const float* x,
                               std::int64_t rows) const {
  const std::int64_t k = shape_.experts_per_token;
  ExpertChoice* choices = context.device.scratch().take_array<ExpertChoice>(rows * k);
  const Scratch::Scope scope(context.device.scratch());
  float* logits = context.device.scratch().take_array<float>(rows * shape_.experts);
  linear(context.cpu().pool(), context.device.scratch(), parameters.linear(router_), {x, rows, shape_.hidden_size},
         logits, shape_.experts, {shape_.router_bias ? parameters.vector(router_bias_) : nullptr, false});
  const float* correction = shape_.correction.empty() ? nullptr : parameters.vector(correction_);
  context.cpu().pool().for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      route(shape_.router, correction, {logits + row * shape_.experts, static_cast<std::size_t>(shape_.experts)},
            {choices + row * k, static_cast<std::size_t>(k)});
    }
  });
  return choices;
}

void MoeLayer::run_experts(const LayerContext& context, const Parameters& parameters, const Buckets& buckets,
                           const float* inputs, float* outputs) const {
  const std::int64_t width = shape_.hidden_size;
  for (std::size_t e = 0; e < experts_.size(); ++e) {
    const std::int64_t first = buckets.first[e], count = buckets.first[e + 1] - first;
    if (count == 0) continue;
    const ProductInput x{view_of(const_cast<float*>(inputs) + first * width, count, width)};
    experts_[e].partial(context, parameters, x, view_of(outputs + first * width, count, width));
  }
}

void MoeLayer::combine(const LayerContext& context, const Parameters& parameters, const ExpertChoice* choices,
                       const std::int64_t* output_of, const float* outputs, std::int64_t rows, bool accumulate,
                       float* sums) const {
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  const float* biases = shape_.stacked ? parameters.vector(output_biases_) : nullptr;
  context.cpu().pool().for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t i = 0; i < width; ++i) {
        float sum = 0;
        for (std::int64_t c = row * k; c < (row + 1) * k; ++c) {
          float output = outputs[output_of[c] * width + i];
          if (biases != nullptr) output += biases[choices[c].expert * width + i];
          sum += choices[c].weight * output;
        }
        sums[row * width + i] = accumulate ? sums[row * width + i] + sum : sum;
      }
    }
  });
}

Result<void> MoeLayer::add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                              const View& residual) const {
  CHECK((context.ep != nullptr ? context.ep->size() : 1) == ranks_, "experts were declared over {} ranks", ranks_);
  const std::int64_t rows = x.rows.rows;
  if (ranks_ > 1) return add_expert_parallel(context, parameters, x.rows.floats(), rows, residual.floats());
  return add_tensor_parallel(context, parameters, x.rows.floats(), rows, residual.floats());
}

Result<void> MoeLayer::add_tensor_parallel(const LayerContext& context, const Parameters& parameters, const float* x,
                                           std::int64_t rows, float* residual) const {
  const Scratch::Scope scope(context.device.scratch());
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  const ExpertChoice* choices = choose(context, parameters, x, rows);
  const Buckets buckets = sort(context, rows * k, [choices](std::int64_t i) { return choices[i].expert; });
  float* inputs = context.device.scratch().take_array<float>(rows * k * width);
  float* outputs = context.device.scratch().take_array<float>(rows * k * width);
  context.cpu().pool().for_range(rows * k, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      std::copy_n(x + i / k * width, width, inputs + buckets.place_of[i] * width);
  });
  run_experts(context, parameters, buckets, inputs, outputs);
  if (context.tp.size() > 1 && rows * k * width >= scattered_floats_min) {
    return scatter_and_combine(context, parameters, choices, buckets, outputs, rows, residual);
  }
  // The experts' trees all at once: the sum over ranks is by element, so it does not matter that they lie side by side.
  CHORUS_TRY_VOID(context.tp.all_reduce_tree({outputs, static_cast<std::size_t>(rows * k * width)}));
  combine(context, parameters, choices, buckets.place_of, outputs, rows, true, residual);
  return {};
}

Result<void> MoeLayer::scatter_and_combine(const LayerContext& context, const Parameters& parameters,
                                           const ExpertChoice* choices, const Buckets& buckets, const float* outputs,
                                           std::int64_t rows, float* residual) const {
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  const std::int64_t first = first_home_row(context, rows, context.tp.rank());
  const std::int64_t own = first_home_row(context, rows, context.tp.rank() + 1) - first;
  float* by_row = context.device.scratch().take_array<float>(rows * k * width);
  context.cpu().pool().for_range(rows * k, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      std::copy_n(outputs + buckets.place_of[i] * width, width, by_row + i * width);
  });
  const auto ranks = static_cast<std::size_t>(context.tp.size());
  std::size_t* counts = context.device.scratch().take_array<std::size_t>(context.tp.size());
  for (int r = 0; r < context.tp.size(); ++r) {
    counts[r] =
        static_cast<std::size_t>((first_home_row(context, rows, r + 1) - first_home_row(context, rows, r)) * k * width);
  }
  float* finished = by_row + first * k * width;
  CHORUS_TRY_VOID(context.tp.reduce_scatter_tree({by_row, static_cast<std::size_t>(rows * k * width)}, {counts, ranks},
                                                 {finished, static_cast<std::size_t>(own * k * width)}));
  std::int64_t* in_order = context.device.scratch().take_array<std::int64_t>(own * k);
  std::iota(in_order, in_order + own * k, std::int64_t{0});
  float* sums = context.device.scratch().take_array<float>(rows * width);
  combine(context, parameters, choices + first * k, in_order, finished, own, false, sums + first * width);
  return gather_and_add(context, sums, rows, residual);
}

Result<void> MoeLayer::gather_and_add(const LayerContext& context, float* sums, std::int64_t rows,
                                      float* residual) const {
  if (rows == 0) return {};  // on all ranks of tp
  const std::int64_t width = shape_.hidden_size;
  const auto ranks = static_cast<std::size_t>(context.tp.size());
  std::size_t* sizes = context.device.scratch().take_array<std::size_t>(context.tp.size());
  for (int r = 0; r < context.tp.size(); ++r) {
    sizes[r] =
        static_cast<std::size_t>((first_home_row(context, rows, r + 1) - first_home_row(context, rows, r)) * width) * 4;
  }
  const std::span<float> all(sums, static_cast<std::size_t>(rows * width));
  const auto first = static_cast<std::size_t>(first_home_row(context, rows, context.tp.rank()) * width);
  const auto own = all.subspan(first, sizes[context.tp.rank()] / 4);
  CHORUS_TRY_VOID(context.tp.all_gather_v(std::as_bytes(own), {sizes, ranks}, std::as_writable_bytes(all)));
  add(context.cpu().pool(), sums, rows, width, width, residual, width);
  return {};
}

}  // namespace chorus
