// What clients of the server send.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "server/http/request_reader.h"
#include "server/openai/catalog.h"
#include "server/openai/generation_request.h"
#include "server/openai/output_parser.h"
#include "targets.h"

namespace chorus::fuzz {
namespace {

// What is read of `input` in pieces of `piece` bytes, as a text.
std::string requests_of(std::string_view input, std::size_t piece) {
  HttpLimits limits;
  limits.head_bytes_max = 1024;
  limits.body_bytes_max = 4096;
  RequestReader reader(limits);
  std::string all;
  for (std::size_t at = 0; at < input.size(); at += piece) {
    reader.feed(input.substr(at, piece));
    for (auto step = reader.advance(); step != RequestReader::Step::needs_bytes; step = reader.advance()) {
      if (step == RequestReader::Step::refused) return all + "refused";
      if (step == RequestReader::Step::head) continue;
      const HttpRequest request = reader.take();
      all += request.method + ' ' + request.path + '?' + request.query + ' ' + request.body + '\n';
      for (const auto& [name, value] : request.fields) all += name + ": " + value + '\n';
    }
  }
  return all;
}

ServedModel served_model(const ChatFormat* chat) {
  ServedModel model;
  model.names = {"model"};
  model.chat = chat;
  model.max_model_len = 128;
  return model;
}

ChatFormat plain_chat() {
  const Folder folder;
  folder.write("tokenizer_config.json",
               R"({"chat_template": "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}{{ tools }}"})");
  auto chat = ChatFormat::load(folder.path());
  CHECK(chat.ok(), "{}", chat.error().message);
  return std::move(*chat);
}

// What of `output` is thoughts, content and calls, as a text; fed in pieces of `piece` bytes.
std::string parts_of(const OutputRules& rules, std::string_view output, std::size_t piece) {
  OutputParser parser(rules);
  OutputDelta all;
  for (std::size_t at = 0; at < output.size(); at += piece) parser.push(output.substr(at, piece), &all);
  parser.finish(&all);
  std::string text = all.reasoning + '|' + all.content;
  for (const ToolCallDelta& call : all.calls) text += '|' + call.name.value() + '|' + call.arguments;
  return text;
}

}  // namespace

// Where the bytes are cut changes nothing but how soon a wrong request is refused.
void run_http_request(std::string_view input) {
  const std::string whole = requests_of(input, input.size() + 1), cut = requests_of(input, 3);
  if (whole != cut) std::abort();
}

void run_api_body(std::string_view input) {
  static const ChatFormat chat = plain_chat();
  static const ServedModel model = served_model(&chat);
  const auto body = parse_json(input, {std::size_t{4} << 20, 64});
  if (!body.ok() || !body->is_object()) return;
  const auto completion = parse_completion(*body, model, "1");
  if (const auto* request = std::get_if<GenerationRequest>(&completion);
      request != nullptr && request->inputs.empty()) {
    std::abort();
  }
  (void)parse_chat(*body, model);
  (void)parse_tokenize(*body, model);
  (void)parse_detokenize(*body, model);
}

// The first byte says which parsers; where the others are cut changes nothing.
void run_model_output(std::string_view input) {
  if (input.empty()) return;
  const auto choice = static_cast<unsigned char>(input.front());
  const auto formats = tool_call_formats();
  OutputRules rules;
  rules.tool_calls = &formats[choice % formats.size()];
  if (choice / 4 % 4 < 3) rules.reasoning = static_cast<ReasoningStart>(choice / 4 % 4);
  input.remove_prefix(1);
  if (parts_of(rules, input, input.size() + 1) != parts_of(rules, input, 1 + choice / 16)) std::abort();
}

}  // namespace chorus::fuzz
