#include "server/openai/catalog.h"

#include "server/openai/common_fields.h"

namespace chorus {
namespace {

void write_model(JsonWriter& json, const ServedModel& model, const std::string& name, std::int64_t created_s) {
  json.begin_object().key("id").value(name).key("object").value("model").key("created").value(created_s);
  json.key("owned_by").value("chorus").key("root").value(model.names.front()).key("parent").null();
  json.key("max_model_len").value(model.max_model_len).key("permission").begin_array().end_array().end_object();
}

}  // namespace

std::string models_json(const ServedModel& model, std::int64_t created_s) {
  std::string text;
  JsonWriter json(&text);
  json.begin_object().key("object").value("list").key("data").begin_array();
  for (const std::string& name : model.names) write_model(json, model, name, created_s);
  json.end_array().end_object();
  return text;
}

std::string model_json(const ServedModel& model, const std::string& name, std::int64_t created_s) {
  std::string text;
  JsonWriter json(&text);
  write_model(json, model, name, created_s);
  return text;
}

Parsed<TokenizeRequest> parse_tokenize(const Json& body, const ServedModel& model) {
  Fields fields(body);
  check_model(fields, model);
  TokenizeRequest request;
  const bool is_chat = fields.find("messages") != nullptr;
  request.add_special_tokens = fields.flag("add_special_tokens", !is_chat);
  request.return_token_strings = fields.flag("return_token_strs", false);
  if (is_chat == (fields.find("prompt") != nullptr)) fields.fail("prompt", "give either prompt or messages");
  std::optional<std::string> text;
  if (fields.ok()) text = is_chat ? render_chat(fields, model) : fields.text("prompt");
  if (!fields.ok()) return fields.error();
  request.text = std::move(*text);
  return request;
}

std::string tokenize_json(std::span<const TokenId> tokens, const TokenizeRequest& request, const Tokenizer& tokenizer,
                          int max_model_len) {
  std::string text;
  JsonWriter json(&text);
  json.begin_object().key("count").value(std::uint64_t{tokens.size()}).key("max_model_len").value(max_model_len);
  json.key("tokens").begin_array();
  for (const TokenId token : tokens) json.value(token);
  json.end_array().key("token_strs");
  if (request.return_token_strings) {
    json.begin_array();
    for (const TokenId token : tokens) json.value(tokenizer.id_to_token(token).value_or(""));
    json.end_array();
  } else {
    json.null();
  }
  json.end_object();
  return text;
}

Parsed<std::vector<TokenId>> parse_detokenize(const Json& body, const ServedModel& model) {
  Fields fields(body);
  check_model(fields, model);
  const Json* const tokens = fields.list("tokens");
  if (tokens == nullptr) fields.fail("tokens", "tokens: give a list of token ids");
  std::optional<std::vector<TokenId>> ids;
  if (fields.ok()) ids = token_ids_of(fields, "tokens", *tokens);
  if (!fields.ok()) return fields.error();
  return std::move(*ids);
}

Parsed<std::vector<std::string>> parse_abort(const Json& body) {
  Fields fields(body);
  const Json* const given = fields.list("request_ids");
  std::vector<std::string> ids;
  for (const Json& id : given == nullptr ? Json::array() : *given) {
    if (id.is_string()) ids.push_back(id.get<std::string>());
  }
  if (given == nullptr || ids.size() != given->size()) {
    fields.fail("request_ids", "request_ids: give a list of the ids of answers or requests");
  }
  if (!fields.ok()) return fields.error();
  return ids;
}

std::string member_json(std::string_view name, std::string_view value) {
  std::string text;
  JsonWriter(&text).begin_object().key(name).value(value).end_object();
  return text;
}

std::string member_json(std::string_view name, std::uint64_t value) {
  std::string text;
  JsonWriter(&text).begin_object().key(name).value(value).end_object();
  return text;
}

}  // namespace chorus
