// quantization_config of a config.json: how a checkpoint's matrices are quantised.
#pragma once

#include <string>

#include "config/config_fields.h"
#include "config/model_config.h"

namespace chorus {

// Sets model->stored_formats. `path`: of the config.json, for messages. Errors: a method that is not read here.
Result<void> read_quantization(const std::string& path, const ConfigFields& fields, ModelConfig* model);

}  // namespace chorus
