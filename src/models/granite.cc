// Granite 3 (IBM, 2024): Llama with four factors, of the embedding, the residual, q k and the logits ("maximal update
// parametrization": Yang et al., 2022).
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  model->attention_scale = fields->number_or("attention_multiplier", 1e-9, 1e6, 1);
  model->own_numbers = {{"embedding_multiplier", fields->number_or("embedding_multiplier", -1e6, 1e6, 1)},
                        {"residual_multiplier", fields->number_or("residual_multiplier", -1e6, 1e6, 1)},
                        {"logits_scaling", fields->number_or("logits_scaling", 1e-9, 1e9, 1)}};
  return {};
}

Decoder make(const ModelPart& part) {
  const ModelConfig& config = part.config;
  DecoderEnds ends;
  ends.embedding_multiplier = config.own("embedding_multiplier");
  ends.logits_multiplier = 1.0 / config.own("logits_scaling");
  return Decoder(part, ends, [&](const LayerBuilder& layer) {
    SequentialBlock block = llama_block(layer, layer.attention_shape());
    block.residual_multiplier = static_cast<float>(config.own("residual_multiplier"));
    return block;
  });
}

}  // namespace

extern const Family granite_family;
const Family granite_family = {"GraniteForCausalLM", nullptr, read_config, make};

}  // namespace chorus
