// The one table of known architectures. A new family is a file and a row.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "models/decoder.h"

namespace chorus {

struct ModelFamily {
  const char* architecture;  // as in config.json's architectures[0]
  DecoderSpec (*spec)(const ModelConfig& config);
};

const std::vector<ModelFamily>& model_families();
// The row of config.architecture; an unknown one is an error that lists the known.
Result<const ModelFamily*> find_model_family(const ModelConfig& config);

}  // namespace chorus
