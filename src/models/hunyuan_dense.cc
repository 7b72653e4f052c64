// HunYuan dense (Tencent, 2025): RMS norm over each head of q and k behind the rotary embedding.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  model->attention_bias = model->attention_output_bias = fields->flag_or("attention_bias", false);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.head_norms = {"query_layernorm", "key_layernorm", HeadNorms::Of::each_head_turned};
    return llama_block(layer, shape);
  });
}

}  // namespace

extern const Family hunyuan_dense_family;
const Family hunyuan_dense_family = {"HunYuanDenseV1ForCausalLM", nullptr, read_config, make};

}  // namespace chorus
