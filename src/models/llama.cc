// Llama 1 to 3 (Touvron et al., 2023; Dubey et al., 2024). attention_bias covers all four projections.
#include "models/families.h"

namespace chorus {

DecoderSpec llama_spec(const ModelConfig& config) {
  DecoderSpec spec;
  spec.qkv_bias = config.attention_bias;
  spec.attention_output_bias = config.attention_bias;
  return spec;
}

}  // namespace chorus
