// Qwen3 (Yang et al., 2025): RMS norm over each head of q and k before the rotary embedding.
#include "models/families.h"

namespace chorus {

DecoderSpec qwen3_spec(const ModelConfig& config) {
  DecoderSpec spec;
  spec.qkv_bias = config.attention_bias;
  spec.attention_output_bias = config.attention_bias;
  spec.qk_norm = true;
  return spec;
}

}  // namespace chorus
