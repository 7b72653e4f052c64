// Mixtral (Jiang et al., 2024): every layer a mixture; the chosen experts' weights are normalised.
#include "models/families.h"

namespace chorus {

DecoderSpec mixtral_spec(const ModelConfig&) {
  DecoderSpec spec;
  spec.moe_prefix = "block_sparse_moe";
  spec.expert_names = {"w1", "w3", "w2"};
  spec.routing = MoeRouting::softmax_top_k_normalized;
  return spec;
}

}  // namespace chorus
