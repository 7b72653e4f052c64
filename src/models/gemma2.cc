// Gemma 2 (Riviere et al., 2024): every other layer has a window; scores and logits are capped.
#include "models/gemma.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_gemma_fields(fields, {.head_dim = 256}, model));
  read_gemma_windows(fields, 4096, 2, model);
  const auto cap = [&](const char* key, double fallback) -> OwnNumber {
    return {key, fields->is_null(key) ? 0 : fields->number_or(key, 1e-3, 1e6, fallback)};
  };
  model->own_numbers.push_back(cap("attn_logit_softcapping", 50));
  model->own_numbers.push_back(cap("final_logit_softcapping", 30));
  return {};
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends = gemma_ends(part.config);
  ends.logits_cap = part.config.own("final_logit_softcapping");
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.softcap = layer.config.own("attn_logit_softcapping");
    return gemma_block(layer, shape);
  });
}

}  // namespace

extern const Family gemma2_family;
const Family gemma2_family = {"Gemma2ForCausalLM", nullptr, read_config, make};

}  // namespace chorus
