#include "server/openai/common_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "frontend/sampling_options.h"

namespace chorus {
namespace {

// Known to vLLM or OpenAI, and not to this version.
constexpr const char* missing_features[] = {
    "audio",
    "chat_template",
    "function_call",
    "functions",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "kv_transfer_params",
    "logits_processors",
    "prediction",
    "prompt_embeds",
    "repetition_detection",
    "structured_outputs",
    "suffix",
    "thinking_token_budget",
    "use_beam_search",
    "vllm_xargs",
    "web_search_options",
};

// Known, and without a meaning here.
constexpr const char* ignored_fields[] = {"metadata",
                                          "parallel_tool_calls",
                                          "prompt_cache_key",
                                          "safety_identifier",
                                          "session_id",
                                          "service_tier",
                                          "store",
                                          "user",
                                          "verbosity"};

void refuse_missing_features(Fields& fields) {
  for (const char* const name : ignored_fields) (void)fields.find(name);
  for (const char* const name : missing_features) fields.refuse(name);
  if (const auto best = fields.whole("best_of", 0, INT32_MAX); best && *best > 1) {
    fields.fail("best_of", "best_of is not supported: ask for n choices");
  }
  const Json* const format = fields.object("response_format");
  if (format == nullptr) return;
  const auto type = format->find("type");
  if (type == format->end() || *type != "text") {
    fields.fail("response_format", "response_format is not supported, but for {\"type\": \"text\"}");
  }
}

// All of Chorus's own sampling options by their names. Where an endpoint means something else by a name, it is given in
// `elsewhere`.
void apply_sampling(Fields& fields, GenerationOptions* options, std::initializer_list<std::string_view> elsewhere) {
  for (const SamplingOption& option : sampling_options()) {
    if (std::ranges::find(elsewhere, std::string_view(option.name)) != elsewhere.end()) continue;
    const Json* const value = fields.find(option.name);
    if (value == nullptr) continue;
    if (const auto applied = apply_sampling_option(options, option.name, *value); !applied.ok()) {
      fields.fail(option.name, applied.error().message);
    }
  }
}

void read_stream(Fields& fields, GenerationRequest* request) {
  request->stream = fields.flag("stream", false);
  const Json* const options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!request->stream) return fields.fail("stream_options", "stream_options is for stream = true");
  Fields inner(*options);
  request->include_usage = inner.flag("include_usage", false);
  request->continuous_usage_stats = inner.flag("continuous_usage_stats", false);
  if (!inner.ok()) fields.fail("stream_options", inner.error().message);
}

// Which ranks there are is known where it is submitted: they come and go.
std::optional<int> read_rank(Fields& fields, std::optional<std::string_view> header) {
  if (!header) return std::nullopt;
  int rank = 0;
  const auto [end, error] = std::from_chars(header->data(), header->data() + header->size(), rank);
  if (error != std::errc() || end != header->data() + header->size()) return std::nullopt;
  if (rank >= 0) return rank;
  fields.fail("X-data-parallel-rank", fmt::format("there is no data parallel rank {}", rank));
  return std::nullopt;
}

std::int32_t read_priority(Fields& fields, const ServedModel& model) {
  const std::int64_t priority = fields.whole("priority", INT32_MIN, INT32_MAX).value_or(0);
  if (priority != 0 && !model.by_priority) {
    fields.fail("priority", "priority counts with --scheduling-policy priority alone: leave it out");
  }
  return static_cast<std::int32_t>(priority);
}

}  // namespace

GenerationInput read_common(Fields& fields, const ServedModel& model, GenerationRequest* request,
                            std::initializer_list<std::string_view> own, std::optional<std::string_view> rank) {
  check_model(fields, model);
  refuse_missing_features(fields);
  read_stream(fields, request);
  GenerationInput input;
  input.options = model.defaults;
  input.options.fills_context = request->kind == GenerationRequest::Kind::chat && model.chat_fills_context;
  apply_sampling(fields, &input.options, own);
  input.priority = read_priority(fields, model);
  input.dp_rank = read_rank(fields, rank);
  request->request_id = fields.text("request_id");
  request->return_token_ids = fields.flag("return_token_ids", false);
  request->return_tokens_as_token_ids = fields.flag("return_tokens_as_token_ids", false);
  request->prompt_logprobs = input.options.params.prompt_logprobs.has_value();
  if (request->prompt_logprobs && request->stream) {
    fields.fail("prompt_logprobs", "prompt_logprobs cannot come in a stream: leave stream out");
  }
  return input;
}

void check_model(Fields& fields, const ServedModel& model) {
  const auto name = fields.text("model");
  if (!name || std::ranges::find(model.names, *name) != model.names.end()) return;
  fields.fail("model", fmt::format("the model {} is not here: there is {}", *name, fmt::join(model.names, ", ")), 404);
}

std::optional<std::vector<TokenId>> token_ids_of(Fields& fields, const char* name, const Json& list) {
  std::vector<TokenId> ids;
  ids.reserve(list.size());
  for (const Json& entry : list) {
    const bool whole = entry.is_number_integer() && !(entry < 0) && entry <= INT32_MAX;
    if (!whole) {
      fields.fail(name, fmt::format("{} has {}: give token ids", name,
                                    entry.dump(-1, ' ', false, Json::error_handler_t::replace)));
      return std::nullopt;
    }
    ids.push_back(entry.get<TokenId>());
  }
  return ids;
}

}  // namespace chorus
