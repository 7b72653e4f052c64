// What a request must give, computed from prompt and parameters alone, one token after the other, with no scheduler,
// cache or batch. Written from the rules in request/request.h, not from sched/'s own finish rules.
#pragma once

#include <optional>
#include <vector>

#include "request/request.h"
#include "testing/toy_model.h"

namespace chorus::sim {

struct ExpectedChoice {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::none;
  std::optional<TokenId> stop_token;
};

ExpectedChoice expected_choice(const ToyModel& model, const Request& request, std::uint32_t choice);

}  // namespace chorus::sim
