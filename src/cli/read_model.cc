#include "cli/read_model.h"

#include "frontend/prompt_line.h"
#include "frontend/tokenizer_eos.h"
#include "models/registry.h"

namespace chorus {

Result<ModelConfig> read_model(const EngineConfig& engine) {
  CHORUS_TRY(ModelConfig model, read_model_config(engine.model, engine.generation_config));
  CHORUS_TRY_VOID(validate(engine));
  CHORUS_TRY_VOID(find_model_family(model));  // before the sizes: an unknown family's may be missing
  CHORUS_TRY_VOID(validate(engine, model));
  return model;
}

Result<TextModel> with_tokenizer(ModelConfig config) {
  CHORUS_TRY(auto tokenizer, load_tokenizer_if_there(config.directory));
  if (tokenizer != nullptr) CHORUS_TRY_VOID(add_tokenizer_eos(*tokenizer, &config));
  return TextModel{std::move(config), std::move(tokenizer)};
}

}  // namespace chorus
