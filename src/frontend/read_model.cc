#include "frontend/read_model.h"

#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "base/log.h"
#include "frontend/prompt_line.h"
#include "frontend/tokenizer_eos.h"
#include "models/registry.h"
#include "weights/tied_head.h"

namespace chorus {
namespace {

// config.json says that the output head is the embedding, but the checkpoint has one of other values: it counts. What
// is wrong with the checkpoint itself is said by whoever loads it.
Result<void> untie_own_head(const EngineConfig& engine, ModelConfig* model) {
  if (!model->tie_word_embeddings || engine.load_format == LoadFormat::dummy) return {};
  const auto checkpoint = open_checkpoint(engine.model, false, model->quantization);
  if (!checkpoint.ok()) return {};
  CHORUS_TRY(const bool own, has_own_head(**checkpoint, model->vocab_size, model->hidden_size));
  if (!own) return {};
  log(LogLevel::warning,
      "{}: tie_word_embeddings is true, but the checkpoint has an lm_head.weight of other values: it is used",
      engine.model);
  model->tie_word_embeddings = false;
  return {};
}

// A fine-tune may name tokens that its embedding was not enlarged for: a prompt that has one cannot be run.
void warn_of_tokens_beyond(const Tokenizer& tokenizer, const ModelConfig& model) {
  constexpr std::size_t named_max = 5;
  std::vector<std::string> tokens;
  for (std::int32_t id = model.vocab_size; id < tokenizer.vocab_size() && tokens.size() < named_max; ++id) {
    if (const auto token = tokenizer.id_to_token(id)) tokens.push_back(fmt::format("{} ({})", *token, id));
  }
  if (tokens.empty()) return;
  log(LogLevel::warning, "{}: the tokenizer has {} ids and the embedding {}: prompts with {}{} will fail",
      model.directory, tokenizer.vocab_size(), model.vocab_size, fmt::join(tokens, ", "),
      tokens.size() == named_max ? ", .." : "");
}

}  // namespace

Result<ModelConfig> read_model(const EngineConfig& engine) {
  CHORUS_TRY(ModelConfig model, read_model_config(engine.model, engine.generation_config));
  CHORUS_TRY_VOID(validate(engine));
  CHORUS_TRY_VOID(find_family(model));  // before the sizes: an unknown family's may be missing
  CHORUS_TRY_VOID(validate(engine, model));
  CHORUS_TRY_VOID(untie_own_head(engine, &model));
  return model;
}

Result<TextModel> with_tokenizer(ModelConfig config) {
  CHORUS_TRY(auto tokenizer, load_tokenizer_if_there(config.directory));
  if (tokenizer != nullptr) {
    CHORUS_TRY_VOID(add_tokenizer_eos(*tokenizer, &config));
    warn_of_tokens_beyond(*tokenizer, config);
  }
  return TextModel{std::move(config), std::move(tokenizer)};
}

}  // namespace chorus
