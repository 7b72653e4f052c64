// Mistral (Jiang et al., 2023): Llama with a sliding window.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {}, model));
  read_windows(fields, Windows::all_layers, 4096, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) { return llama_block(layer, layer.attention_shape()); });
}

}  // namespace

extern const Family mistral_family;
const Family mistral_family = {"MistralForCausalLM", nullptr, read_config, make};

}  // namespace chorus
