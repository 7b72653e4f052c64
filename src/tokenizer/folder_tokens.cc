#include "tokenizer/folder_tokens.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "gguf/model_text.h"

namespace chorus {
namespace {

constexpr std::size_t file_bytes_max = 64U << 20;
constexpr std::array names = {"bos_token", "eos_token", "unk_token", "sep_token",
                              "pad_token", "cls_token", "mask_token"};

Result<Json> read_object(const std::string& directory, const char* name) {
  CHORUS_TRY(auto object, read_model_object(directory, name, file_bytes_max));
  return object ? std::move(*object) : Json::object();
}

bool flag(const Json& object, const char* name, bool otherwise) {
  const auto found = object.find(name);
  return found != object.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

// A token is a string or an object with its content; anything else is none. A string names a special one.
std::optional<AddedToken> token_of(const Json& value, bool special_by_default) {
  AddedToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
    token.special = true;
    return token;
  }
  if (!value.is_object() || !value.contains("content") || !value["content"].is_string()) return std::nullopt;
  token.content = value["content"].get<std::string>();
  token.special = flag(value, "special", special_by_default);
  token.single_word = flag(value, "single_word", false);
  token.lstrip = flag(value, "lstrip", false);
  token.rstrip = flag(value, "rstrip", false);
  token.normalized = flag(value, "normalized", !token.special);
  return token;
}

bool is_standard(const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

// tokenizer_config.json's added_tokens_decoder, {"512": {"content": ..}}, by ascending id.
std::vector<AddedToken> decoder_tokens(const Json& decoder) {
  std::map<long, AddedToken> by_id;
  if (!decoder.is_object()) return {};
  for (const auto& [id, value] : decoder.items()) {
    if (auto token = token_of(value, false))
      by_id.insert_or_assign(std::strtol(id.c_str(), nullptr, 10), std::move(*token));
  }
  std::vector<AddedToken> tokens;
  for (auto& [id, token] : by_id) tokens.push_back(std::move(token));
  return tokens;
}

// added_tokens.json, {"<|im_start|>": 512}, by ascending id.
std::vector<AddedToken> file_tokens(const Json& file, const std::vector<AddedToken>& special) {
  std::map<double, AddedToken> by_id;
  for (const auto& [content, id] : file.items()) {
    if (!id.is_number()) continue;
    AddedToken token;
    token.content = content;
    token.special = std::ranges::find(special, content, &AddedToken::content) != special.end();
    token.normalized = !token.special;
    by_id.insert_or_assign(id.get<double>(), std::move(token));
  }
  std::vector<AddedToken> tokens;
  for (auto& [id, token] : by_id) tokens.push_back(std::move(token));
  return tokens;
}

// The named tokens in transformers' order, then the list of further ones.
std::vector<AddedToken> special_tokens(const Json& config, std::map<std::string, std::string>* named) {
  std::vector<AddedToken> tokens;
  const auto take = [&](const std::string& name, const Json& value) {
    auto token = token_of(value, true);
    if (!token || token->content.empty()) return;
    token->special = true;
    named->insert_or_assign(name, token->content);
    tokens.push_back(std::move(*token));
  };
  for (const char* name : names) {
    if (const auto found = config.find(name); found != config.end()) take(name, *found);
  }
  for (const auto& [name, value] : config.items()) {
    if (name.ends_with("_token") && !is_standard(name) && value.is_string()) take(name, value);
  }
  for (const char* list : {"extra_special_tokens", "additional_special_tokens"}) {
    const auto found = config.find(list);
    if (found == config.end()) continue;
    if (found->is_object()) {
      for (const auto& [name, value] : found->items()) take(name, value);
    } else if (found->is_array() && !found->empty()) {
      for (const Json& value : *found) {
        if (auto token = token_of(value, true)) tokens.push_back(std::move(*token));
      }
      break;  // the second is the first's older name
    }
  }
  return tokens;
}

}  // namespace

Result<FolderTokens> read_folder_tokens(const std::string& directory) {
  FolderTokens tokens;
  CHORUS_TRY(tokens.config, read_object(directory, "tokenizer_config.json"));
  Json merged = tokens.config;
  std::vector<AddedToken> special;
  if (const auto decoder = tokens.config.find("added_tokens_decoder"); decoder != tokens.config.end()) {
    tokens.added = decoder_tokens(*decoder);
    special = special_tokens(merged, &tokens.named);
  } else {
    CHORUS_TRY(const Json map, read_object(directory, "special_tokens_map.json"));
    merged.update(map);
    special = special_tokens(merged, &tokens.named);
    CHORUS_TRY(const Json file, read_object(directory, "added_tokens.json"));
    tokens.added = file_tokens(file, special);
  }
  for (AddedToken& token : tokens.added) {
    const auto is_named = [&token](const auto& entry) { return entry.second == token.content; };
    if (std::ranges::any_of(tokens.named, is_named)) token.special = true;
  }
  for (AddedToken& token : special) {
    const bool known = std::ranges::find(tokens.added, token.content, &AddedToken::content) != tokens.added.end();
    if (!known) tokens.added.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace chorus
