#include "cli/read_model.h"

#include "models/registry.h"

namespace chorus {

Result<ModelConfig> read_model(const EngineConfig& engine) {
  CHORUS_TRY(ModelConfig model, read_model_config(engine.model, engine.generation_config));
  CHORUS_TRY_VOID(validate(engine));
  CHORUS_TRY_VOID(find_model_family(model));  // before the sizes: an unknown family's may be missing
  CHORUS_TRY_VOID(validate(engine, model));
  return model;
}

}  // namespace chorus
