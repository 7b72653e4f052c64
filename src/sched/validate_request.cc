#include "sched/validate_request.h"

#include <fmt/format.h>

#include "sched/finish.h"

namespace chorus {
namespace {

std::optional<std::string> check_tokens(const std::vector<TokenId>& tokens, const char* what, std::int32_t vocab_size) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocab_size) continue;
    return fmt::format("{} token {} is {}, outside the vocabulary [0, {}): use this model's tokenizer", what, i,
                       tokens[i], vocab_size);
  }
  return std::nullopt;
}

std::optional<std::string> check_length(std::int64_t prompt_length, std::int32_t max_model_len) {
  if (prompt_length == 0) return "prompt is empty: give at least one token";
  if (prompt_length > max_model_len) {
    return fmt::format("prompt has {} tokens, longer than max_model_len {}: shorten it or raise --max-model-len",
                       prompt_length, max_model_len);
  }
  if (prompt_length == max_model_len) {
    return fmt::format(
        "prompt has {} tokens, which leaves no room for output in max_model_len {}: shorten it or raise "
        "--max-model-len",
        prompt_length, max_model_len);
  }
  return std::nullopt;
}

std::optional<std::string> check_choices(const Request& request, const SchedulerConfig& config) {
  if (request.params.n == 0) return "n is 0: ask for at least one choice";
  if (request.params.max_tokens == 0) return "max_tokens is 0: ask for at least one token";
  for (std::size_t i = 0; i < request.choices.size(); ++i) {
    const ChoiceState& choice = request.choices[i];
    if (choice.index >= request.params.n || (i > 0 && choice.index <= request.choices[i - 1].index)) {
      return fmt::format("choice {} of n {} is out of range or order: give each unfinished choice once, ascending",
                         choice.index, request.params.n);
    }
    if (auto error = check_tokens(choice.emitted, "emitted", config.vocab_size)) return error;
  }
  return std::nullopt;
}

std::optional<std::string> check_blocks(const Request& request, const SchedulerConfig& config) {
  const auto prompt_length = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t output = output_limit(request.params, prompt_length, config.max_model_len);
  // The last output token is told and never computed, so it needs no slot.
  const std::int64_t blocks = (prompt_length + output - 1 + config.block_size - 1) / config.block_size;
  const KvShape shape = kv_shape(config);
  const KvPools& pools = shape.pools;
  const std::int32_t pool = shape.short_of(blocks, config.kv_blocks);
  if (pool < 0) return std::nullopt;
  return fmt::format(
      "prompt of {} tokens and {} output tokens need {} KV blocks of {} tokens{}, there are {}: lower max_tokens "
      "or raise --kv-cache-memory",
      prompt_length, output, shape.needed(blocks, pool), config.block_size,
      pools.pools == 1 ? "" : fmt::format(" on context rank {}", pool), pools.size(config.kv_blocks, pool));
}

}  // namespace

std::optional<std::string> validate_request(const Request& request, const SchedulerConfig& config) {
  if (auto error = check_length(static_cast<std::int64_t>(request.prompt.size()), config.max_model_len)) return error;
  if (auto error = check_tokens(request.prompt, "prompt", config.vocab_size)) return error;
  if (auto error = check_choices(request, config)) return error;
  return check_blocks(request, config);
}

}  // namespace chorus
