// Offline work over a TextEngine: rows are read as there is room for them, and each comes back whole.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "config/engine_config.h"
#include "frontend/text_engine.h"
#include "request/request.h"

namespace chorus {

struct GeneratedChoice {
  std::uint32_t index = 0;
  std::string text;
  std::vector<TokenId> token_ids;
  FinishReason finish_reason = FinishReason::none;
  std::optional<TokenId> stop_token;
  std::optional<std::string> stop_string;
  std::vector<PositionLogprobs> logprobs;
};

struct GenerationOutput {
  UnderstoodPrompt prompt;  // where asked for
  std::uint64_t prompt_tokens = 0;
  std::vector<GeneratedChoice> choices;           // n, by index; empty on error
  std::vector<PositionLogprobs> prompt_logprobs;  // from the second prompt token on
  std::optional<std::string> error;               // of this row alone
  ErrorCode error_code = ErrorCode::internal;     // with an error: whose fault it is
  int dp_rank = -1;
  double ttft_s = 0;  // from add() to the first token
  double latency_s = 0;
};

struct GenerationProgress {
  std::size_t finished = 0;  // rows
  std::uint64_t output_tokens = 0;
};

struct OfflineRow {
  std::size_t index = 0;
  GenerationInput input;
};

struct OfflineWork {
  // The next row; nullopt: there are no more. Asked when there is room for one.
  std::function<Result<std::optional<OfflineRow>>()> next;
  // Once for each row, in the order in which they finish. An error ends the work with it.
  std::function<Result<void>(std::size_t index, GenerationOutput&& output)> on_finished;
  std::function<bool()> may_read;                                       // false: no more rows now; may be empty
  std::function<void(const GenerationProgress& progress)> on_progress;  // may be empty
  std::function<Result<void>()> between_polls;                          // may be empty; an error ends the work with it
  std::function<bool()> interrupted;  // asked between polls, may be empty; true ends the work: cancelled
  // Rows not done by then (monotonic), and rows not read, finish with the error `deadline_message`.
  std::optional<Nanoseconds> deadline;
  std::string deadline_message;
};

// Does the work until all rows are finished. A row that cannot run finishes with its error; the work ends early, with
// nothing left in flight, when the fleet fails or one of the functions says so.
Result<void> run_offline(TextEngine& engine, const OfflineWork& work);

// Enough rows in flight to keep every replica busy: as many wait on this side as are at the replicas. More would only
// take memory.
TextEngineLimits offline_limits(const EngineConfig& config);

// The seed of a request that brings none: a function of the engine's seed and the prompt, so that neither the order of
// the input, nor the command, nor a resumed run changes it. Equal prompts get equal seeds: who wants several samples
// asks for n > 1 or gives seeds.
std::uint64_t seed_for(std::uint64_t engine_seed, std::span<const TokenId> prompt);
// The rule of that. It says once in the log when it gives several samples of one prompt the same seed.
SeedRule seed_by_prompt(std::uint64_t engine_seed);

// The rows of a list, dealt to the data-parallel ranks: to its own, or by config.assignment, or to none (it then runs
// wherever there is room). Each rank's first row comes first, then each rank's second, ..., so that a bounded number in
// flight keeps every rank busy; rows without a rank keep their places among themselves.
std::vector<OfflineRow> deal(std::vector<GenerationInput> inputs, const EngineConfig& config);
// OfflineWork::next over such a list, which must outlive it.
std::function<Result<std::optional<OfflineRow>>()> rows_of(std::vector<OfflineRow>* rows);

}  // namespace chorus
