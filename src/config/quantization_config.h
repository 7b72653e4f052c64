// quantization_config of a config.json: how a checkpoint's matrices are quantised.
#pragma once

#include <string>

#include "config/config_fields.h"
#include "config/model_config.h"

namespace chorus {

// Sets model->quantization, and of a GGUF file model->stored_formats. Which matrices of a folder
// are quantised is known from the tensors in its files; the lists of exempt modules in config.json are not read, since
// each tool matches their names differently. `path`: of the config.json, for messages. Errors: a method, or a kind of
// it, that is not read here. Keys: transformers, utils/quantization_config.py; compressed-tensors,
// quantization/quant_config.py and quant_args.py.
Result<void> read_quantization(const std::string& path, const ConfigFields& fields, ModelConfig* model);

}  // namespace chorus
