// What everybody who runs a model does first.
#pragma once

#include <memory>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// The configuration of engine.model, after this: the options are possible, the architecture is known, and the options
// fit the model. Errors (invalid_argument, not_found) name the option or the file.
Result<ModelConfig> read_model(const EngineConfig& engine);

// What a front end needs of it.
struct TextModel {
  ModelConfig config;                          // with the tokenizer's own end-of-sequence token
  std::shared_ptr<const Tokenizer> tokenizer;  // null: the directory has no tokenizer.json
};
Result<TextModel> with_tokenizer(ModelConfig config);

}  // namespace chorus
