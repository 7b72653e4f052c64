// Qwen2 and Qwen2.5 (Yang et al., 2024): biases on q, k and v, none on the output projection.
#include "models/families.h"

namespace chorus {

DecoderSpec qwen2_spec(const ModelConfig&) {
  DecoderSpec spec;
  spec.qkv_bias = true;
  return spec;
}

}  // namespace chorus
