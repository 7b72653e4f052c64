// Text in, text out over a fleet: tokenizes, gives seeds, submits, detokenizes as tokens come, finds stop strings, and
// puts the choices of each request together. What generate, run, bench (and later batch and serve) stand on.
//
// Single-threaded, like the fleet it drives.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "config/engine_config.h"
#include "fleet/fleet.h"
#include "frontend/sampling_options.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// One prompt: its text, or its token ids (text empty then).
struct GenerationInput {
  std::string prompt;
  std::optional<std::vector<TokenId>> prompt_token_ids;
  bool add_special_tokens = true;  // false for a rendered chat
  GenerationOptions options;
  std::int32_t priority = 0;
  std::optional<int> dp_rank;        // pinned, or as the assignment says
  std::optional<std::string> error;  // the row failed before it came here (its chat template, say)
};

struct GeneratedChoice {
  std::uint32_t index = 0;
  std::string text;
  std::vector<TokenId> token_ids;
  FinishReason finish_reason = FinishReason::none;
  std::optional<TokenId> stop_token;  // the stop_reason: not set for the tokenizer's own EOS
  std::optional<std::string> stop_string;
  std::vector<PositionLogprobs> logprobs;
};

struct GenerationOutput {
  std::string prompt;  // decoded when only ids were given
  std::vector<TokenId> prompt_token_ids;
  std::vector<GeneratedChoice> choices;           // n, by index; empty on error
  std::vector<PositionLogprobs> prompt_logprobs;  // from the second prompt token on
  std::optional<std::string> error;               // of this row alone
  int dp_rank = -1;
  double ttft_s = 0;  // from submission to the first token
  double latency_s = 0;
};

struct GenerationProgress {
  std::size_t finished = 0, total = 0;
  std::uint64_t output_tokens = 0;
};

class TextGenerator {
 public:
  // `tokenizer` may be null when every prompt is token ids; texts are then empty.
  TextGenerator(Fleet& fleet, std::shared_ptr<const Tokenizer> tokenizer, const EngineConfig& config,
                const ModelConfig& model);
  ~TextGenerator();

  // Generates for all inputs. `on_finished(index, output)` comes once for each input, in the order they finish.
  // A row that cannot run (too long, empty, ids out of range, invalid UTF-8) finishes with its error; the call fails
  // only when the fleet does. After `deadline` (monotonic) the rows not done finish with an error saying
  // `deadline_message`. `interrupted` is asked between polls; true ends the call with ErrorCode::cancelled.
  struct Callbacks {
    std::function<void(std::size_t index, GenerationOutput&& output)> on_finished;
    std::function<void(const GenerationProgress& progress)> on_progress;  // may be empty
    std::function<bool()> interrupted;                                    // may be empty
  };
  Result<void> generate(const std::vector<GenerationInput>& inputs, const Callbacks& callbacks,
                        std::optional<Nanoseconds> deadline = {}, const std::string& deadline_message = "");

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chorus
