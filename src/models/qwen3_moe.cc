// Qwen3Moe (Yang et al., 2025): Qwen3 attention; some layers may be dense (mlp_only_layers, decoder_sparse_step).
#include "models/families.h"

namespace chorus {

DecoderSpec qwen3_moe_spec(const ModelConfig& config) {
  DecoderSpec spec = qwen3_spec(config);
  spec.routing = config.norm_topk_prob ? MoeRouting::softmax_top_k_normalized : MoeRouting::softmax_top_k;
  return spec;
}

}  // namespace chorus
