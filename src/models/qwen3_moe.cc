// Qwen3Moe (Yang et al., 2025): Qwen3 attention; some layers may be dense (mlp_only_layers, decoder_sparse_step).
#include <algorithm>

#include "models/family.h"

namespace chorus {
namespace {

void read_mixture(ConfigFields* fields, ModelConfig* model) {
  // transformers 5 writes the number under num_local_experts, 4 under num_experts.
  const char* key = fields->has("num_experts") ? "num_experts" : "num_local_experts";
  read_experts(fields, {key, 0, 128, 8}, model);
  model->moe_intermediate_size = static_cast<int>(fields->integer_or("moe_intermediate_size", 1, 1 << 22, 768));
  model->norm_topk_prob = fields->flag_or("norm_topk_prob", false);
  const auto step = fields->integer_or("decoder_sparse_step", 1, layers_max, 1);
  const auto dense = fields->integers("mlp_only_layers", layers_max, 0);
  if (model->num_experts == 0) return;
  for (std::int32_t layer = 0; layer < model->num_hidden_layers; ++layer) {
    const bool forced_dense = std::find(dense.begin(), dense.end(), layer) != dense.end();
    model->layer_is_moe.push_back(!forced_dense && (layer + 1) % step == 0);
  }
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  read_windows(fields, Windows::all_layers_if_used, 4096, model);
  read_mixture(fields, model);
  return {};
}

DecoderSpec spec(const ModelConfig& config) {
  DecoderSpec spec;
  spec.head_norms = {"q_norm", "k_norm"};
  spec.routing = config.norm_topk_prob ? MoeRouting::softmax_top_k_normalized : MoeRouting::softmax_top_k;
  return spec;
}

}  // namespace

extern const Family qwen3_moe_family;
const Family qwen3_moe_family = {"Qwen3MoeForCausalLM", nullptr, read_config, spec};

}  // namespace chorus
