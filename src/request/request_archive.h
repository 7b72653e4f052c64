// The wire form of this room's values: between a front end and its engines, and to the workers of a replica.
#pragma once

#include "net/archive.h"
#include "request/engine_load.h"
#include "request/request.h"

namespace chorus::archive {

template <typename Archive>
void visit(Archive& archive, IsA<RequestId> auto& value) {
  visit_all(archive, value.client, value.number);
}

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

template <typename Archive>
void visit(Archive& archive, IsA<ChoiceState> auto& value) {
  visit_all(archive, value.index, value.emitted);
}

template <typename Archive>
void visit(Archive& archive, IsA<TokenEvent> auto& value) {
  visit_all(archive, value.request, value.choice, value.position, value.token, value.logprobs, value.prompt_logprobs);
  archive.enumerator(value.finish, FinishReason::error, "a finish reason");
  visit_all(archive, value.stop_token, value.error);
}

template <typename Archive>
void visit(Archive& archive, IsA<Request> auto& value) {
  visit_all(archive, value.id, value.prompt, value.params, value.priority, value.choices, value.skip_prompt_logprobs);
}

template <typename Archive>
void visit(Archive& archive, IsA<EngineLoad> auto& value) {
  visit_all(archive, value.waiting, value.running, value.kv_blocks_free, value.kv_blocks_total, value.preemptions,
            value.prefix_cache_queries, value.prefix_cache_hits, value.steps, value.prompt_tokens, value.output_tokens);
}

}  // namespace chorus::archive
