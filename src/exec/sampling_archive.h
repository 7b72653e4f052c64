// How sampling parameters and logprobs cross the wire: to the workers of a replica, and between a fleet and its
// engines.
#pragma once

#include "net/archive.h"
#include "sched/request.h"

namespace chorus::archive {

template <typename Archive>
void visit(Archive& archive, IsA<TokenLogprob> auto& value) {
  visit_all(archive, value.token, value.logprob);
}

template <typename Archive>
void visit(Archive& archive, IsA<PositionLogprobs> auto& value) {
  visit_all(archive, value.chosen, value.top);
}

template <typename Archive>
void visit(Archive& archive, IsA<SamplingParams> auto& value) {
  visit_all(archive, value.n, value.temperature, value.top_p, value.top_k, value.min_p, value.presence_penalty,
            value.frequency_penalty, value.repetition_penalty, value.seed, value.max_tokens, value.min_tokens,
            value.ignore_eos, value.stop_token_ids, value.logprobs, value.prompt_logprobs, value.logit_bias);
}

}  // namespace chorus::archive
