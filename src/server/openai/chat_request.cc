#include <fmt/format.h>

#include <algorithm>

#include "server/openai/common_fields.h"

namespace chorus {
namespace {

bool is_tool(const Json& tool) {
  if (!tool.is_object() || !tool.contains("type") || tool["type"] != "function") return false;
  const auto function = tool.find("function");
  if (function == tool.end() || !function->is_object()) return false;
  const auto name = function->find("name");
  return name != function->end() && name->is_string();
}

// "auto" where there are tools and nothing is said. "none" leaves them to the template alone.
void read_tool_choice(Fields& fields, const ServedModel& model, OutputRules* output) {
  const Json* const tools = fields.list("tools");
  const bool has_tools = tools != nullptr && !tools->empty();
  if (has_tools && !std::ranges::all_of(*tools, is_tool)) return;  // render_chat() says so
  output->parallel_tool_calls = fields.flag("parallel_tool_calls", true);
  const Json* const choice = fields.find("tool_choice");
  if (choice == nullptr ? !has_tools : *choice == "none") return;
  if (choice != nullptr && !has_tools) return fields.fail("tool_choice", "tool_choice needs tools");
  if (choice != nullptr && *choice != "auto") {
    return fields.fail("tool_choice", "tool_choice is supported as \"none\" and \"auto\": a call cannot be forced yet");
  }
  if (model.tool_calls == nullptr) {
    return fields.fail("tool_choice",
                       "\"auto\" needs a server with --enable-auto-tool-choice and --tool-call-parser; with "
                       "\"tool_choice\": \"none\" the template has the tools");
  }
  output->tool_calls = model.tool_calls;
}

// A message's thoughts by both of their names: templates know the one or the other (as vLLM's
// entrypoints/chat_utils.py).
void name_reasoning(Json& message) {
  for (const auto& [given, other] : {std::pair("reasoning", "reasoning_content"), {"reasoning_content", "reasoning"}}) {
    const auto found = message.find(given);
    if (found == message.end() || !found->is_string() || message.contains(other)) continue;
    Json text = *found;
    message[other] = std::move(text);
  }
}

bool is_part(const Json& part) {
  return part.is_string() || part.is_object();
}

bool is_message(const Json& message) {
  if (!message.is_object()) return false;
  const auto role = message.find("role"), content = message.find("content");
  if (role == message.end() || !role->is_string()) return false;
  if (content == message.end() || content->is_null() || content->is_string()) return true;
  return content->is_array() && std::ranges::all_of(*content, is_part);
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
  request->logprobs = fields.flag("logprobs", false) || !input->options.params.logprob_token_ids.empty();
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
  for (Json& message : variables["messages"]) {
    read_call_arguments(message, {std::size_t{4} << 20, 64});
    name_reasoning(message);
  }
  for (const char* const name : {"tools", "documents"}) {
    if (const Json* const list = fields.list(name)) variables[name] = *list;
  }
  for (const char* const name : {"add_generation_prompt", "continue_final_message"}) {
    if (fields.find(name) != nullptr) variables[name] = fields.flag(name, false);
  }
  Json more = Json::object();
  if (variables.contains("tools") && !std::ranges::all_of(variables["tools"], is_tool)) {
    fields.fail("tools", "tools: give a list of {\"type\": \"function\", \"function\": {\"name\", ..}}");
  }
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
  read_tool_choice(fields, model, &request.output);
  request.output.shows_reasoning = fields.flag("include_reasoning", true);
  input.add_special_tokens = fields.flag("add_special_tokens", false);  // the template writes them
  input.return_prompt = request.prompt_logprobs || request.return_token_ids;
  if (!fields.ok()) return fields.error();
  auto prompt = render_chat(fields, model);
  if (!prompt) return fields.error();
  if (model.reasoning) {
    request.output.reasoning = reasoning_start(*model.reasoning, *prompt, fields.flag("continue_final_message", false));
  }
  const bool markers_are_special = (request.output.tool_calls != nullptr && model.tool_markers_are_special) ||
                                   (model.reasoning && model.think_markers_are_special);
  if (markers_are_special) input.options.skip_special_tokens = false;  // as vLLM's adjust_request
  input.prompt = std::move(*prompt);
  request.unknown_fields = fields.unknown();
  request.inputs.push_back(std::move(input));
  return request;
}

}  // namespace chorus
