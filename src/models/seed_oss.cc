// Seed-OSS (ByteDance Seed, 2025): Llama with biases on q, k and v.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.head_dim = 128}, model));
  model->attention_bias = fields->flag_or("attention_bias", true);
  model->attention_output_bias = fields->flag_or("attention_out_bias", false);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) { return llama_block(layer, layer.attention_shape()); });
}

}  // namespace

extern const Family seed_oss_family;
const Family seed_oss_family = {"SeedOssForCausalLM", nullptr, read_config, make};

}  // namespace chorus
