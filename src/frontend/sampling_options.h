// Sampling options as users name them, in JSON lines, workflow files, on the command line and over HTTP: one
// table, one set of bounds, one place that says what is wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "base/result.h"
#include "config/model_config.h"
#include "json/json.h"
#include "request/request.h"

namespace chorus {

// SamplingParams plus what concerns text alone. `seed` is empty until the front door gives one.
struct GenerationOptions {
  SamplingParams params;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  std::vector<std::string> bad_words;  // become params.bad_words when the tokenizer is there
  std::string cache_salt;              // of the request; empty: none
  // The prompt's tokens are cut to this many; -1: to what max_model_len leaves beside max_tokens; 0: not cut.
  std::int32_t truncate_prompt_tokens = 0;
  bool truncates_right = false;  // its end is cut off instead of its beginning
  // Until max_tokens is given: as many as max_model_len leaves behind the prompt, whatever params.max_tokens says. What
  // a chat request means that says nothing (vLLM's chat_completion protocol); generate's rows have the default of 16.
  bool fills_context = false;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.params, self.seed, self.stop, self.include_stop_str_in_output, self.skip_special_tokens,
                 self.bad_words, self.cache_salt, self.truncate_prompt_tokens, self.truncates_right,
                 self.fills_context);
  }
};

struct SamplingOption {
  const char* name;        // as in JSON: "max_tokens"; the command line writes --max-tokens
  const char* value_hint;  // nullptr: a flag
  const char* help;
  Result<void> (*apply)(GenerationOptions* options, const Json& value);
};
const std::vector<SamplingOption>& sampling_options();

// Sets one option; null is as if it were not given. `name` with dashes or underscores. Unknown: an error that names the
// nearest. A bad value: the option, the value and what is accepted.
Result<void> apply_sampling_option(GenerationOptions* options, std::string_view name, const Json& value);
// The same from the command line: numbers, JSON and plain words.
Result<void> apply_sampling_option_text(GenerationOptions* options, const std::string& name, const std::string& value);

// vLLM's defaults, overlaid by generation_config.json's when `use_generation_config`.
GenerationOptions default_generation_options(const ModelConfig& model, bool use_generation_config);

}  // namespace chorus
