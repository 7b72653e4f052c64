// Mixtral (Jiang et al., 2024): every layer a mixture; the chosen experts' weights are normalised.
#include "models/family.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_decoder_fields(fields, {.norm_eps = 1e-5, .rope_theta = 1e6}, model));
  read_windows(fields, Windows::all_layers, 0, model);
  make_every_layer_a_mixture(fields, 8, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return Decoder(part, {}, [](const LayerBuilder& layer) {
    const auto experts = [&] {
      return layer.moe(layer.moe_shape({MoeRouting::softmax_top_k_normalized}), "block_sparse_moe", {"w1", "w3", "w2"});
    };
    return pre_norm_block(layer, layer.attention_shape(), experts);
  });
}

}  // namespace

extern const Family mixtral_family;
const Family mixtral_family = {"MixtralForCausalLM", nullptr, read_config, make};

}  // namespace chorus
