// Phi-3, Phi-3.5-mini and Phi-4 (Abdin et al., 2024): Llama with q, k and v in one matrix, and gate and up in another;
// a part of each head may turn (Phi-4-mini).
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.norm_eps = 1e-5, .turns_a_part = true}, model));
  read_windows(fields, Windows::all_layers, 0, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    Attention::Shape shape = layer.attention_shape();
    shape.q = shape.k = shape.v = "qkv_proj";
    return pre_norm_block(layer, shape, [&] {
      return layer.gated_mlp(Activation::silu, {"mlp.gate_up_proj", "mlp.gate_up_proj", "mlp.down_proj"});
    });
  });
}

}  // namespace

extern const Family phi3_family;
const Family phi3_family = {"Phi3ForCausalLM", nullptr, read_config, make};

}  // namespace chorus
