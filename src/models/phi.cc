// Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al., 2023): both halves of a layer read one layer norm, biases everywhere.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields,
                                      {.norm_eps_key = "layer_norm_eps",
                                       .norm_eps = 1e-5,
                                       .turns_a_part = true,
                                       .partial_rotary_factor = 0.5,
                                       .is_gelu = true},
                                      model));
  model->attention_bias = model->attention_output_bias = model->mlp_bias = model->lm_head_bias = true;
  if (fields->flag_or("qk_layernorm", false)) {
    fields->refuse_value("qk_layernorm", *fields->find("qk_layernorm"), "false");
  }
  return {};
}

Decoder make(const ModelPart& part) {
  DecoderEnds ends;
  ends.norm = "model.final_layernorm";
  ends.norm_kind = NormKind::layer;
  return Decoder(part, ends, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.output = "dense";
    return ParallelBlock{layer.norm("input_layernorm", NormKind::layer), layer.attention(shape),
                         layer.plain_mlp("mlp.fc1", "mlp.fc2")};
  });
}

}  // namespace

extern const Family phi_family;
const Family phi_family = {"PhiForCausalLM", nullptr, read_config, make};

}  // namespace chorus
