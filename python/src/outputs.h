// What an engine says, as tuples and lists of plain Python values; chorus/outputs.py makes objects of them. With the
// GIL.
#pragma once

#include <nanobind/nanobind.h>

#include "frontend/offline.h"
#include "frontend/text_engine.h"

namespace chorus::python {

// (prompt, prompt_token_ids, prompt_logprobs, choices, dp_rank, ttft_s, latency_s); a choice is (index, text,
// token_ids, finish_reason, stop_reason, logprobs); logprobs are [(token_id, logprob, [(token_id, logprob), ..]), ..].
nanobind::tuple tuple_of(const GenerationOutput& output);

// (number, choice, text, token, logprob, finish_reason, stop_reason, prompt, prompt_logprobs, error, last, dp_rank,
// cached_tokens); None where there is nothing. `prompt`: (text, token_ids). `error`: an exception.
nanobind::tuple tuple_of(const TextDelta& delta);

}  // namespace chorus::python
