// Layers as a ModelConfig has them.
#include "models/decoder.h"

namespace chorus {

NormKind norm_about_one(const ModelConfig& config) {
  return config.own("norm_weight_offset") == 0 ? NormKind::rms : NormKind::rms_about_one;
}

Norm LayerBuilder::norm(const std::string& name, NormKind kind) const {
  return {part_.parameters, prefix_ + name, config.hidden_size, config.norm_eps, kind};
}

Attention::Shape LayerBuilder::attention_shape() const {
  const auto at = static_cast<std::size_t>(index_);
  Attention::Shape shape;
  shape.hidden_size = config.hidden_size;
  shape.heads = config.num_attention_heads;
  shape.kv_heads = config.num_key_value_heads;
  shape.head_dim = config.head_dim;
  shape.qkv_bias = config.attention_bias;
  shape.output_bias = config.attention_output_bias;
  shape.scale = config.attention_scale;
  shape.window = config.layer_window[at];
  shape.is_rotary = config.layer_is_rotary[at];
  shape.rotary_table = config.window_rope && shape.window > 0 ? 1 : 0;
  shape.norm_eps = config.norm_eps;
  return shape;
}

Attention LayerBuilder::attention(const Attention::Shape& shape, const std::string& name) const {
  return {part_.parameters, part_.shard.tp, prefix_ + name, shape};
}

DeltaNet LayerBuilder::delta_net(DeltaNet::Shape shape) const {
  shape.hidden_size = config.hidden_size;
  shape.norm_eps = config.norm_eps;
  return {part_.parameters, part_.shard.tp, prefix_ + "linear_attn", shape};
}

LatentAttention LayerBuilder::latent_attention(const LatentAttention::Shape& shape) const {
  return {part_.parameters, part_.shard.tp, prefix_ + "self_attn", shape};
}

GatedMlp LayerBuilder::gated_mlp(Activation activation, const GatedMlp::Names& names) const {
  return {part_.parameters,
          part_.shard.tp,
          GatedMlp::Names{prefix_ + names.gate, prefix_ + names.up, prefix_ + names.down},
          config.hidden_size,
          config.intermediate_size,
          config.mlp_bias,
          activation};
}

PlainMlp LayerBuilder::plain_mlp(const std::string& up, const std::string& down, bool transposed) const {
  return {part_.parameters,   part_.shard.tp,           prefix_ + up,    prefix_ + down,
          config.hidden_size, config.intermediate_size, config.mlp_bias, transposed};
}

bool LayerBuilder::is_moe() const {
  return config.num_experts > 0 && config.layer_is_moe[static_cast<std::size_t>(index_)];
}

MoeLayer::Shape LayerBuilder::moe_shape(const MoeRouter& router) const {
  MoeLayer::Shape shape;
  shape.hidden_size = config.hidden_size;
  shape.intermediate_size = config.moe_intermediate_size;
  shape.experts = config.num_experts;
  shape.experts_per_token = config.num_experts_per_tok;
  shape.router = router;
  return shape;
}

MoeLayer LayerBuilder::moe(const MoeLayer::Shape& shape, const std::string& name, const GatedMlp::Names& names) const {
  return {part_.parameters, part_.shard.tp, part_.shard.ep, prefix_ + name, names, shape};
}

SharedMoe LayerBuilder::shared_moe(const MoeLayer::Shape& shape, const SharedMoe::Shared& shared) const {
  return {part_.parameters, part_.shard.tp, prefix_ + "mlp", moe(shape), config.hidden_size, shared};
}

FeedForward LayerBuilder::deepseek_mlp(MoeRouting routing) const {
  if (!is_moe()) return gated_mlp();
  MoeLayer::Shape shape =
      moe_shape({routing, 0, static_cast<int>(config.own("n_group")), static_cast<int>(config.own("topk_group")),
                 config.norm_topk_prob, config.own("routed_scaling_factor")});
  if (routing == MoeRouting::group_sigmoid) shape.correction = "gate.e_score_correction_bias";
  const auto shared = static_cast<int>(config.own("n_shared_experts"));
  if (shared == 0) return moe(shape);
  return shared_moe(shape, {"shared_experts", shared * config.moe_intermediate_size, false});
}

MoeRouting softmax_routing(const ModelConfig& config) {
  return config.norm_topk_prob ? MoeRouting::softmax_top_k_normalized : MoeRouting::softmax_top_k;
}

SequentialBlock llama_block(const LayerBuilder& layer, const Attention::Shape& shape) {
  return pre_norm_block(layer, shape, [&] { return layer.gated_mlp(); });
}

}  // namespace chorus
