// Granite 3 (IBM, 2024): Llama with four factors, of the embedding, the residual, q k and the logits ("maximal update
// parametrization": Yang et al., 2022).
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  model->embedding_multiplier = fields->number_or("embedding_multiplier", -1e6, 1e6, 1);
  model->residual_multiplier = fields->number_or("residual_multiplier", -1e6, 1e6, 1);
  model->attention_scale = fields->number_or("attention_multiplier", 1e-9, 1e6, 1);
  model->logits_divisor = fields->number_or("logits_scaling", 1e-9, 1e9, 1);
  return {};
}

DecoderSpec spec(const ModelConfig&) {
  return {};
}

}  // namespace

extern const Family granite_family;
const Family granite_family = {"GraniteForCausalLM", nullptr, read_config, spec};

}  // namespace chorus
