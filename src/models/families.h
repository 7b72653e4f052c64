// One function a family, each in its own file; models/registry.cc lists them.
#pragma once

#include "models/decoder.h"

namespace chorus {

DecoderSpec llama_spec(const ModelConfig& config);
DecoderSpec mistral_spec(const ModelConfig& config);
DecoderSpec qwen2_spec(const ModelConfig& config);
DecoderSpec qwen3_spec(const ModelConfig& config);
DecoderSpec mixtral_spec(const ModelConfig& config);
DecoderSpec qwen3_moe_spec(const ModelConfig& config);
DecoderSpec phimoe_spec(const ModelConfig& config);

}  // namespace chorus
