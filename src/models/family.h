// What a family of models is. Each stands in a file of this room, with a row in registry.cc.
#pragma once

#include "config/model_fields.h"
#include "models/decoder.h"

namespace chorus {

struct Family {
  const char* architecture;           // as in config.json's architectures[0]
  const char* former_name = nullptr;  // of the same architecture, in older files
  // Reads the fields of its config.json; an error is one that makes it useless to read on (config/model_fields.h).
  Result<void> (*read_config)(ConfigFields* fields, ModelConfig* model);
  // Builds the part of the model that one worker computes.
  Decoder (*make)(const ModelPart& part);
};

}  // namespace chorus
