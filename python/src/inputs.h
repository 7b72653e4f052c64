// From Python's prompts to the engine's inputs. With the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "frontend/text_engine.h"

namespace chorus::python {

// What SamplingParams becomes (frontend/sampling_options.h).
struct SamplingOptions {
  GenerationOptions options;
};

// `prompt`: a str, or a list of token ids. Ids beyond 32 bits are clamped: they are out of every vocabulary all the
// same, which the engine says. Raises TypeError.
GenerationInput input_from(nanobind::handle prompt, const SamplingOptions& options, bool add_special_tokens,
                           int priority, std::optional<int> dp_rank);

// A JSON object of sampling options; "max_tokens": null is as many as the context holds. Raises ValueError.
SamplingOptions sampling_options_from(const std::string& json);

}  // namespace chorus::python
