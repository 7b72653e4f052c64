// Mistral (Jiang et al., 2023): Llama with a sliding window, which ModelConfig::layer_window carries.
#include "models/families.h"

namespace chorus {

DecoderSpec mistral_spec(const ModelConfig&) {
  return {};
}

}  // namespace chorus
