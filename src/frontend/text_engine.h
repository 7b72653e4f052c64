// Text in, text out over a fleet, as it comes: add() takes a prompt, poll() gives what every request has said since.
// Tokenizes, gives seeds, submits, detokenizes, finds stop strings. What generate, run and bench, and a server's
// front ends, stand on.
//
// One thread calls everything, like the fleet that it drives. A long prompt becomes tokens on a thread beside it, so
// that it delays nobody's stream; requests are submitted in the order of add() all the same, and what a request answers
// depends on nothing but itself.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
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
  std::optional<int> dp_rank;        // pinned; nullopt: wherever there is room
  bool return_prompt = false;        // its text and ids come with the first delta
  std::uint64_t tag = 0;             // the caller's: each delta brings it back
  std::optional<std::string> error;  // the request failed before it came here (its chat template, say)
};

using TextRequestId = std::uint64_t;  // of one TextEngine, from 1; never used again

// The prompt as it was understood. The text of one that came as ids is their decoding.
struct UnderstoodPrompt {
  std::string text;
  std::vector<TokenId> token_ids;  // empty where the text could not be encoded
};

// What one choice of a request has said. Of each choice the deltas in order are its whole output, and its last one has
// a finish.
struct TextDelta {
  TextRequestId request = 0;
  std::uint64_t tag = 0;
  std::uint32_t choice = 0;
  // Can be shown as it is: whole characters, and nothing that may turn out to be a stop string. May be empty while
  // a token came, and the other way round.
  std::string text;
  std::optional<TokenId> token;
  std::optional<PositionLogprobs> logprobs;  // of the token, where asked for
  FinishReason finish = FinishReason::none;
  std::optional<TokenId> stop_token;  // the stop_reason: not set for the tokenizer's own EOS
  std::optional<std::string> stop_string;

  std::unique_ptr<UnderstoodPrompt> prompt;       // once, before any token, where asked for
  std::vector<PositionLogprobs> prompt_logprobs;  // once, from the second prompt token on, where asked for
  std::optional<std::string> error;               // of this request alone; what choices said before is not complete
  ErrorCode error_code = ErrorCode::internal;     // with an error: whose fault it is
  bool last = false;                              // the request has ended: no delta of it follows
  int dp_rank = -1;                               // who computed it; -1: nobody yet
  std::optional<PrefillReport> prefill;           // with a choice's first token; again where it has gone on elsewhere
  std::uint32_t preemptions = 0;                  // of the choice, since its last delta
  // Of the request, all choices together, up to here.
  std::uint64_t prompt_tokens = 0, output_tokens = 0;
};

// The seed of a request that brings none, from its prompt. Asked in the order of submission, on the caller's thread.
using SeedRule = std::function<std::uint64_t(std::span<const TokenId> prompt, const SamplingParams& params)>;

struct TextEngineLimits {
  std::size_t requests_max = 16384;                            // added and not ended
  std::size_t unsubmitted_bytes_max = std::size_t{512} << 20;  // of prompts that wait to be tokens; one may be larger
  // Of prompts at the fleet, one may be larger: the rest waits here, in order. Below what the fleet refuses
  // (cluster's limit of tokens that wait for a replica).
  std::uint64_t submitted_tokens_max = std::uint64_t{1} << 27;
  int encoder_threads = 2;  // started when the first long prompt comes
};

class TextEngine {
 public:
  // `tokenizer` may be null where every prompt is token ids; texts are then empty. `config.max_model_len` is the
  // fleet's; 0: the model's.
  TextEngine(Fleet& fleet, std::shared_ptr<const Tokenizer> tokenizer, const EngineConfig& config,
             const ModelConfig& model, SeedRule seed_rule, const TextEngineLimits& limits = {});
  ~TextEngine();

  // Takes a request. What is wrong with it (too long, empty, ids out of range, invalid UTF-8, refused by the fleet) is
  // told by its only delta. resource_exhausted: there is no room; nothing was taken from `input`.
  Result<TextRequestId> add(GenerationInput&& input);
  bool has_room() const;  // an add() would not fail
  // Ends a request: no delta of it comes any more. One that is not there has just ended.
  void abort(TextRequestId request);
  // As Fleet's: every request that is added afterwards is computed from its first token on, or behind another such one.
  std::uint64_t reset_prefix_caches();
  bool prefix_caches_are_reset(std::uint64_t number) const;
  // Waits at most timeout_ms for deltas and appends them. An error: the fleet has failed.
  Result<void> poll(int timeout_ms, std::vector<TextDelta>* deltas);

  // As Fleet::wait(): what a caller that waits in another event loop waits for before it calls poll(0).
  FleetWait wait();

  std::size_t requests() const;  // added and not ended

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace chorus
