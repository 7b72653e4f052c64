#include "models/decoder.h"

namespace chorus {
namespace {

// What a block computes with, beside its residual.
struct Step {
  const LayerContext& context;
  const Parameters& parameters;
  std::span<const RotaryTable> rotary_tables;
  const KvCacheLayer& cache;
  const StepInput& input;
};

Result<void> add(const Step& step, const Mixer& mixer, const ProductInput& x, const View& out) {
  return std::visit(
      [&](const auto& layer) {
        return layer.add_to(step.context, step.parameters, step.rotary_tables, step.cache, step.input, x, out);
      },
      mixer);
}

Result<void> add(const Step& step, const FeedForward& mlp, const ProductInput& x, const View& out) {
  return std::visit([&](const auto& layer) { return layer.add_to(step.context, step.parameters, x, out); }, mlp);
}

ProductInput normed(const Step& step, const Norm& norm, const View& residual) {
  Device& device = step.context.device;
  const ProductInput input{device.take(device.product_dtype(), residual.rows, residual.columns)};
  norm.forward(step.context, step.parameters, residual, input.rows);
  return input;
}

// residual += multiplier * after(half(before(residual))).
template <typename Half>
Result<void> add_half(const Step& step, const std::optional<Norm>& before, const Half& half,
                      const std::optional<Norm>& after, float multiplier, const View& residual) {
  Device& device = step.context.device;
  const Scratch::Scope scope(device.scratch());
  const ProductInput input = before ? normed(step, *before, residual) : product_input(device, residual);
  // Added at once, unless it is read from where it would be added to.
  if (before && !after && multiplier == 1.0F) return add(step, half, input, residual);
  const View added = device.take(DType::float32, residual.rows, residual.columns);
  fill_zero(device, added);
  CHORUS_TRY_VOID(add(step, half, input, added));
  if (after) after->forward(step.context, step.parameters, added, added);
  add_scaled(device, added, multiplier, residual);
  return {};
}

Result<void> run(const Step& step, const SequentialBlock& block, const View& residual) {
  CHORUS_TRY_VOID(add_half(step, block.before_attention, block.attention, block.after_attention,
                           block.residual_multiplier, residual));
  return add_half(step, block.before_mlp, block.mlp, block.after_mlp, block.residual_multiplier, residual);
}

Result<void> run(const Step& step, const ParallelBlock& block, const View& residual) {
  const Scratch::Scope scope(step.context.device.scratch());
  const ProductInput input = normed(step, block.norm, residual);
  CHORUS_TRY_VOID(add(step, block.attention, input, residual));
  return add(step, block.mlp, input, residual);
}

template <typename F>
auto with_halves(const Block& block, const F& f) {
  return std::visit([&](const auto& kind) { return f(kind.attention, kind.mlp); }, block);
}

}  // namespace

ModelShard whole_model(const ModelConfig& config, TensorParallel tp) {
  return {tp, 0, config.num_hidden_layers, true, true, {}};
}

Decoder::Decoder(const ModelPart& part, const DecoderEnds& ends,
                 const std::function<Block(const LayerBuilder&)>& make_block)
    : hidden_size_(part.config.hidden_size),
      embedding_multiplier_(static_cast<float>(ends.embedding_multiplier)),
      logits_multiplier_(static_cast<float>(ends.logits_multiplier)),
      logits_cap_(static_cast<float>(ends.logits_cap)) {
  const ModelConfig& config = part.config;
  const ModelShard& shard = part.shard;
  const std::string embedding_name = ends.embedding + ".weight";
  // A tied model's one matrix serves both ends where one stage has both.
  const bool tied = config.tie_word_embeddings && shard.last_stage;
  if (shard.first_stage && !tied)
    embedding_.emplace(part.parameters, shard.tp, embedding_name, config.vocab_size, config.hidden_size,
                       config.tie_word_embeddings);
  if (shard.first_stage && !ends.positions.empty()) {
    positions_.emplace(part.parameters, ends.positions + ".weight", config.max_position_embeddings, config.hidden_size);
  }
  for (int index = shard.first_layer; index < shard.last_layer; ++index) {
    blocks_.push_back(make_block(LayerBuilder(part, ends.layers + "." + std::to_string(index) + ".", index)));
    kv_.push_back(with_halves(blocks_.back(), [](const Mixer& mixer, const FeedForward&) {
      return std::visit([](const auto& layer) { return layer.kv(); }, mixer);
    }));
  }
  if (!shard.last_stage) return;
  norm_.emplace(part.parameters, ends.norm, config.hidden_size, config.norm_eps, ends.norm_kind);
  head_.emplace(part.parameters, shard.tp, config.tie_word_embeddings ? embedding_name : ends.head + ".weight",
                config.lm_head_bias ? ends.head + ".bias" : "", config.vocab_size, config.hidden_size);
  if (shard.first_stage && tied) embedding_.emplace(*head_, shard.tp, config.vocab_size, config.hidden_size);
}

std::string Decoder::needs_cpu() const {
  const auto need_of = [](const auto& layer) { return layer.needs_cpu(); };
  for (const Block& block : blocks_) {
    const std::string need = with_halves(block, [&](const Mixer& mixer, const FeedForward& mlp) {
      const std::string mixing = std::visit(need_of, mixer);
      return mixing.empty() ? std::visit(need_of, mlp) : mixing;
    });
    if (!need.empty()) return need;
  }
  return {};
}

Result<void> Decoder::forward(const LayerContext& context, const Parameters& parameters,
                              std::span<const RotaryTable> rotary_tables, std::span<const KvCacheLayer> caches,
                              const StepInput& step, const View& hidden) const {
  if (embedding_) {
    CHORUS_TRY_VOID(embedding_->forward(context, parameters, step, hidden));
    if (embedding_multiplier_ != 1.0F) scale(context.device, embedding_multiplier_, hidden);
    if (positions_) positions_->forward(context, parameters, step, hidden);
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Step of_block{context, parameters, rotary_tables, caches[i], step.of_table(caches[i].table)};
    CHORUS_TRY_VOID(std::visit([&](const auto& block) { return run(of_block, block, hidden); }, blocks_[i]));
    context.progress.moved();
  }
  return {};
}

Result<View> Decoder::logits(const LayerContext& context, const Parameters& parameters, const View& hidden,
                             const StepInput& step, std::int64_t first, std::int64_t count) const {
  Device& device = context.device;
  const View gathered = device.take(DType::float32, count, hidden_size_);
  gather_wanted(device, hidden, step, first, gathered);
  const View normed =
      device.kind() == DeviceKind::cpu ? gathered : device.take(device.product_dtype(), count, hidden_size_);
  norm_->forward(context, parameters, gathered, normed);
  CHORUS_TRY(const View out, head_->forward(context, parameters, {normed}));
  if (logits_multiplier_ != 1.0F) scale(device, logits_multiplier_, out);
  if (logits_cap_ != 0) softcap(device, logits_cap_, out);
  return out;
}

}  // namespace chorus
