#include <fmt/format.h>

#include <algorithm>

#include "server/openai/common_fields.h"

namespace chorus {
namespace {

// Without a parser of the model's calls a call would come as text that no client looks for.
void check_tools(Fields& fields) {
  const Json* const tools = fields.list("tools");
  const Json* const choice = fields.find("tool_choice");
  if (choice != nullptr && *choice == "none") return;
  if (choice != nullptr || (tools != nullptr && !tools->empty())) {
    fields.fail("tool_choice",
                "tool calls are not parsed: give \"tool_choice\": \"none\", and the template has the tools");
  }
}

bool is_message(const Json& message) {
  if (!message.is_object()) return false;
  const auto role = message.find("role");
  return role != message.end() && role->is_string();
}

// Templates want the arguments of earlier calls as an object; OpenAI's clients send their text (as vLLM's
// _postprocess_messages, entrypoints/chat_utils.py).
void read_call_arguments(Json& message, const JsonLimits& limits) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    const auto arguments = call["function"].find("arguments");
    if (arguments == call["function"].end() || !arguments->is_string()) continue;
    if (auto parsed = parse_json(arguments->get<std::string>(), limits); parsed.ok()) *arguments = std::move(*parsed);
  }
}

void read_logprobs(Fields& fields, GenerationInput* input, GenerationRequest* request) {
  request->logprobs = fields.flag("logprobs", false);
  const auto top = fields.whole("top_logprobs", 0, top_logprobs_max);
  if (top && *top > 0 && !request->logprobs) fields.fail("top_logprobs", "top_logprobs needs logprobs = true");
  if (request->logprobs) input->options.params.logprobs = static_cast<std::uint32_t>(top.value_or(0));
}

}  // namespace

std::optional<std::string> render_chat(Fields& fields, const ServedModel& model) {
  const Json* const messages = fields.list("messages");
  if (messages == nullptr || messages->empty() || !std::ranges::all_of(*messages, is_message)) {
    fields.fail("messages", "messages: give a list of {\"role\", \"content\"}");
    return std::nullopt;
  }
  Json variables = Json::object();
  variables["messages"] = *messages;
  for (Json& message : variables["messages"]) read_call_arguments(message, {std::size_t{4} << 20, 64});
  for (const char* const name : {"tools", "documents"}) {
    if (const Json* const list = fields.list(name)) variables[name] = *list;
  }
  for (const char* const name : {"add_generation_prompt", "continue_final_message"}) {
    if (fields.find(name) != nullptr) variables[name] = fields.flag(name, false);
  }
  Json more = Json::object();
  if (const auto effort = fields.text("reasoning_effort")) more["reasoning_effort"] = *effort;
  if (const Json* const given = fields.object("chat_template_kwargs")) more.update(*given);
  if (!more.empty()) variables["chat_template_kwargs"] = std::move(more);
  if (!fields.ok()) return std::nullopt;
  auto prompt = model.chat->render(variables);
  if (prompt.ok()) return std::move(*prompt);
  fields.fail("messages", prompt.error().message);
  return std::nullopt;
}

Parsed<GenerationRequest> parse_chat(const Json& body, const ServedModel& model,
                                     std::optional<std::string_view> data_parallel_rank) {
  Fields fields(body);
  GenerationRequest request;
  request.kind = GenerationRequest::Kind::chat;
  GenerationInput input = read_common(fields, model, &request, {"logprobs"}, data_parallel_rank);
  fields.refuse("echo", "use continue_final_message");
  fields.refuse("audio");
  if (const Json* const most = fields.find("max_completion_tokens")) {
    const auto applied = apply_sampling_option(&input.options, "max_tokens", *most);
    if (!applied.ok()) fields.fail("max_completion_tokens", applied.error().message);
  }
  read_logprobs(fields, &input, &request);
  check_tools(fields);
  input.add_special_tokens = fields.flag("add_special_tokens", false);  // the template writes them
  input.return_prompt = request.prompt_logprobs || request.return_token_ids;
  if (!fields.ok()) return fields.error();
  auto prompt = render_chat(fields, model);
  if (!prompt) return fields.error();
  input.prompt = std::move(*prompt);
  request.unknown_fields = fields.unknown();
  request.inputs.push_back(std::move(input));
  return request;
}

}  // namespace chorus
