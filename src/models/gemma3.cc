// Gemma 3, text (Kamath et al., 2025): one layer in six has no window, and another rotary base; norms of each head of q
// and k in the place of caps.
#include <nlohmann/json.hpp>

#include "models/gemma.h"

namespace chorus {
namespace {

// Bases by kind of layer: rope_theta and rope_local_base_freq with rope_scaling for the first (to transformers 4), or
// objects in rope_parameters (from 5).
Result<void> read_bases(ConfigFields* fields, ModelConfig* model) {
  model->window_rope.emplace();
  model->window_rope->theta = fields->number_or("rope_local_base_freq", 1e-3, 1e15, 1e4);
  const Json* both = fields->find("rope_parameters");
  if (both == nullptr || !both->is_object() || !both->contains("full_attention")) return {};
  ConfigFields kinds(*both, fields->where() + ": rope_parameters");
  CHORUS_TRY_VOID(read_rope_object(&kinds, "full_attention", *model, &model->rope));
  CHORUS_TRY_VOID(read_rope_object(&kinds, "sliding_attention", *model, &*model->window_rope));
  return kinds.finish();
}

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_gemma_fields(fields, {.rope_theta = 1e6, .head_dim = 256}, model));
  read_gemma_windows(fields, 4096, static_cast<int>(fields->integer_or("sliding_window_pattern", 1, layers_max, 6)),
                     model);
  for (const char* const key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (fields->has(key)) fields->refuse_value(key, *fields->find(key), "null");
  }
  if (fields->flag_or("use_bidirectional_attention", false)) {
    fields->refuse_value("use_bidirectional_attention", *fields->find("use_bidirectional_attention"), "false");
  }
  return read_bases(fields, model);
}

Decoder make(const ModelPart& part) {
  return Decoder(part, gemma_ends(part.config), [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_norms = {"q_norm", "k_norm", HeadNorms::Of::each_head, norm_about_one(layer.config)};
    return gemma_block(layer, shape);
  });
}

}  // namespace

extern const Family gemma3_family;
const Family gemma3_family = {"Gemma3ForCausalLM", nullptr, read_config, make};

}  // namespace chorus
