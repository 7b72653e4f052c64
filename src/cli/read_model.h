// What every command that runs a model does first.
#pragma once

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"

namespace chorus {

// The configuration of engine.model, after this: the options are possible, the architecture is known, and the options
// fit the model. Errors (invalid_argument, not_found) name the option or the file.
Result<ModelConfig> read_model(const EngineConfig& engine);

}  // namespace chorus
