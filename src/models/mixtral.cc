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

DecoderSpec spec(const ModelConfig&) {
  DecoderSpec spec;
  spec.moe_prefix = "block_sparse_moe";
  spec.expert_names = {"w1", "w3", "w2"};
  spec.routing = MoeRouting::softmax_top_k_normalized;
  return spec;
}

}  // namespace

extern const Family mixtral_family;
const Family mixtral_family = {"MixtralForCausalLM", nullptr, read_config, spec};

}  // namespace chorus
