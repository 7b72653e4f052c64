#include <fmt/format.h>

#include <algorithm>

#include "server/openai/common_fields.h"

namespace chorus {
namespace {

constexpr std::size_t prompts_max = 1024;    // vLLM's VLLM_MAX_COMPLETION_PROMPTS
constexpr std::size_t sequences_max = 4096;  // of one request: prompts times n

void fail_prompt(Fields& fields) {
  fields.fail("prompt", "prompt: give a string, a list of strings, a list of token ids or a list of such lists");
}

GenerationInput with_text(const GenerationInput& common, const Json& text) {
  GenerationInput input = common;
  input.prompt = text.get<std::string>();
  return input;
}

void add_ids(Fields& fields, const GenerationInput& common, const Json& ids, GenerationRequest* request) {
  GenerationInput input = common;
  input.prompt_token_ids = token_ids_of(fields, "prompt", ids);
  request->inputs.push_back(std::move(input));
}

void read_prompts(Fields& fields, const GenerationInput& common, GenerationRequest* request) {
  const Json* const prompt = fields.find("prompt");
  if (prompt == nullptr) return fields.fail("prompt", "give a prompt");
  if (prompt->is_string()) {
    request->inputs.push_back(with_text(common, *prompt));
    return;
  }
  if (!prompt->is_array() || prompt->empty()) return fail_prompt(fields);
  if (prompt->front().is_number()) return add_ids(fields, common, *prompt, request);
  if (prompt->size() > prompts_max) {
    return fields.fail("prompt", fmt::format("{} prompts, the limit is {}", prompt->size(), prompts_max));
  }
  for (const Json& entry : *prompt) {
    if (entry.type() != prompt->front().type()) return fail_prompt(fields);
    if (entry.is_string()) {
      request->inputs.push_back(with_text(common, entry));
    } else if (entry.is_array()) {
      add_ids(fields, common, entry, request);
    } else {
      return fail_prompt(fields);
    }
  }
}

// 0 with echo asks for the prompt alone, as those who measure likelihoods do: one token is made and not shown.
void read_max_tokens(Fields& fields, GenerationInput* input, GenerationRequest* request) {
  const Json* const given = fields.find("max_tokens");
  if (given == nullptr) return;
  if (request->echo && given->is_number() && given->get<double>() == 0) {
    request->prompt_alone = true;
    input->options.params.max_tokens = 1;
    return;
  }
  const auto applied = apply_sampling_option(&input->options, "max_tokens", *given);
  if (!applied.ok()) fields.fail("max_tokens", applied.error().message);
}

}  // namespace

Parsed<GenerationRequest> parse_completion(const Json& body, const ServedModel& model,
                                           std::optional<std::string_view> data_parallel_rank) {
  Fields fields(body);
  GenerationRequest request;
  GenerationInput input = read_common(fields, model, &request, {"logprobs", "max_tokens"}, data_parallel_rank);
  request.echo = fields.flag("echo", false);
  read_max_tokens(fields, &input, &request);
  input.add_special_tokens = fields.flag("add_special_tokens", true);
  if (const auto count = fields.whole("logprobs", 0, top_logprobs_max)) {
    request.logprobs = true;
    input.options.params.logprobs = static_cast<std::uint32_t>(*count);
    if (request.echo && !request.prompt_logprobs) input.options.params.prompt_logprobs = input.options.params.logprobs;
  }
  if (!input.options.params.logprob_token_ids.empty()) request.logprobs = true;
  input.return_prompt = request.echo || request.prompt_logprobs || request.return_token_ids;
  read_prompts(fields, input, &request);
  request.unknown_fields = fields.unknown();
  if (!fields.ok()) return fields.error();
  const std::size_t sequences = request.inputs.size() * input.options.params.n;
  if (sequences > sequences_max) {
    return ApiError{400,
                    fmt::format("{} prompts with n = {} are {} choices, the limit is {}", request.inputs.size(),
                                input.options.params.n, sequences, sequences_max),
                    "n"};
  }
  return request;
}

}  // namespace chorus
