// Phi-3.5-MoE (Abdin et al., 2024): layer norm with bias, biases on every attention projection and the output matrix,
// and the sparse mixer of GRIN as its router.
#include "models/families.h"

namespace chorus {

DecoderSpec phimoe_spec(const ModelConfig& config) {
  DecoderSpec spec;
  spec.qkv_bias = config.attention_bias;
  spec.attention_output_bias = config.attention_bias;
  spec.layer_norm = true;
  spec.moe_prefix = "block_sparse_moe";
  spec.expert_names = {"w1", "w3", "w2"};
  spec.routing = MoeRouting::sparse_mixer;
  return spec;
}

}  // namespace chorus
