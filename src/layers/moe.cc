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

MoeLayer::MoeLayer(Parameters& parameters, TensorParallel tp, const ExpertParallel& ep, const std::string& prefix,
                   const GatedMlp::Names& expert_names, const Shape& shape)
    : shape_(shape), ranks_(ep.size) {
  // The router decides which experts run: it stays in float32, where a rounding can flip fewer choices, and is
  // replicated.
  router_ = parameters.add_linear({shape.experts, shape.hidden_size, 1},
                                  {{prefix + ".gate.weight", {shape.experts, shape.hidden_size}, 0, shape.experts, 0}},
                                  DType::float32);
  const auto declare = [&](Parameters& where, TensorParallel cut, int expert) {
    const std::string name = prefix + ".experts." + std::to_string(expert) + ".";
    experts_.emplace_back(where, cut,
                          GatedMlp::Names{name + expert_names.gate, name + expert_names.up, name + expert_names.down},
                          shape.hidden_size, shape.intermediate_size, false);
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
         logits, shape_.experts, {});
  context.cpu().pool().for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      route(shape_.routing, {logits + row * shape_.experts, static_cast<std::size_t>(shape_.experts)}, shape_.jitter,
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

void MoeLayer::combine(const LayerContext& context, const ExpertChoice* choices, const std::int64_t* output_of,
                       const float* outputs, std::int64_t rows, bool accumulate, float* sums) const {
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  context.cpu().pool().for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t i = 0; i < width; ++i) {
        float sum = 0;
        for (std::int64_t c = row * k; c < (row + 1) * k; ++c)
          sum += choices[c].weight * outputs[output_of[c] * width + i];
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
    return scatter_and_combine(context, choices, buckets, outputs, rows, residual);
  }
  // The experts' trees all at once: the sum over ranks is by element, so it does not matter that they lie side by side.
  CHORUS_TRY_VOID(context.tp.all_reduce_tree({outputs, static_cast<std::size_t>(rows * k * width)}));
  combine(context, choices, buckets.place_of, outputs, rows, true, residual);
  return {};
}

Result<void> MoeLayer::scatter_and_combine(const LayerContext& context, const ExpertChoice* choices,
                                           const Buckets& buckets, const float* outputs, std::int64_t rows,
                                           float* residual) const {
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
  combine(context, choices + first * k, in_order, finished, own, false, sums + first * width);
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
