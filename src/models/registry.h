// The one table of known architectures. A new family is a file and a row.
#pragma once

#include <string>

#include "base/result.h"
#include "config/model_config.h"
#include "models/family.h"

namespace chorus {

// The family of config.architecture; an unknown one is an error that lists the known.
Result<const Family*> find_family(const ModelConfig& config);

// config/model_fields.h, with every family.
Result<ModelConfig> read_model_config(const std::string& directory, const std::string& generation_config = "auto");

}  // namespace chorus
