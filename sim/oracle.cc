#include "oracle.h"

#include <algorithm>

#include "workload.h"

namespace chorus::sim {

ExpectedChoice expected_choice(const ToyModel& model, const Request& request, std::uint32_t choice) {
  const SamplingParams& params = request.params;
  const auto is_stop = [&](TokenId token) {
    return std::find(params.stop_token_ids.begin(), params.stop_token_ids.end(), token) != params.stop_token_ids.end();
  };
  std::vector<TokenId> enders = params.stop_token_ids;
  if (!is_stop(eos_token)) enders.push_back(eos_token);

  ExpectedChoice expected;
  std::vector<TokenId> history = request.prompt;
  while (expected.finish == FinishReason::none) {
    const bool may_end = expected.tokens.size() >= params.min_tokens;
    const std::span<const TokenId> banned = may_end ? std::span<const TokenId>() : enders;
    const TokenId token = model.next_token(history, request.prompt.size(), params, choice, banned);
    history.push_back(token);
    expected.tokens.push_back(token);
    if ((token == eos_token && !params.ignore_eos) || is_stop(token)) {
      expected.finish = FinishReason::stop;
      expected.stop_token = token;
    } else if (expected.tokens.size() == params.max_tokens || history.size() == max_model_len) {
      expected.finish = FinishReason::length;
    }
  }
  return expected;
}

}  // namespace chorus::sim
