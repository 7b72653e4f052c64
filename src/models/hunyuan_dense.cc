// HunYuan dense (Tencent, 2025): RMS norm over each head of q and k behind the rotary embedding.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  return {};
}

DecoderSpec spec(const ModelConfig&) {
  DecoderSpec spec;
  spec.head_norms = {"query_layernorm", "key_layernorm", false};
  return spec;
}

}  // namespace

extern const Family hunyuan_dense_family;
const Family hunyuan_dense_family = {"HunYuanDenseV1ForCausalLM", nullptr, read_config, spec};

}  // namespace chorus
