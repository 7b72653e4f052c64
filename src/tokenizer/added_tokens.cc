#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <deque>

#include "tokenizer/json_fields.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

constexpr std::int32_t id_max = (4 << 20) - 1;
constexpr std::size_t content_bytes_max = 64 << 10;
constexpr std::size_t content_bytes_sum_max = 2 << 20;  // a byte may take a node of 24 bytes to be found by

Result<AddedToken> read_token(const Json& config) {
  AddedToken token;
  CHORUS_TRY(const std::int64_t id, read_whole_number(config, "id", 0, id_max));
  token.id = static_cast<std::int32_t>(id);
  CHORUS_TRY(token.content, read_string(config, "content"));
  if (token.content.size() > content_bytes_max) {
    return fail(ErrorCode::invalid_argument, "content: longer than the limit of {} bytes", content_bytes_max);
  }
  CHORUS_TRY(token.single_word, read_bool(config, "single_word", false));
  CHORUS_TRY(token.lstrip, read_bool(config, "lstrip", false));
  CHORUS_TRY(token.rstrip, read_bool(config, "rstrip", false));
  CHORUS_TRY(token.special, read_bool(config, "special", false));
  CHORUS_TRY(token.normalized, read_bool(config, "normalized", !token.special));
  return token;
}

bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin > 0 && is_word(character_before(text, begin).code_point)) ||
         (end < text.size() && is_word(character_at(text, end).code_point));
}

std::size_t space_begin(std::string_view text, std::size_t end) {
  while (end > 0) {
    const Character character = character_before(text, end);
    if (!is_white_space(character.code_point)) break;
    end -= character.size;
  }
  return end;
}

std::size_t space_end(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    const Character character = character_at(text, begin);
    if (!is_white_space(character.code_point)) break;
    begin += character.size;
  }
  return begin;
}

Result<void> check_id(const AddedToken& token, const StringTable& vocabulary) {
  const std::int32_t known = vocabulary.find(token.content);
  if (known != StringTable::none && known != token.id) {
    return fail(ErrorCode::invalid_argument, "\"{}\" has id {}, but {} in model.vocab", token.content, token.id, known);
  }
  if (known == StringTable::none && vocabulary.has(token.id)) {
    return fail(ErrorCode::invalid_argument, "\"{}\" has id {}, which is that of \"{}\" in model.vocab", token.content,
                token.id, vocabulary.at(token.id));
  }
  return {};
}

}  // namespace

Result<AddedTokens> AddedTokens::load(const Json& config, const StringTable& vocabulary, const Normalizer* normalizer,
                                      std::size_t count_max) {
  AddedTokens added;
  if (config.is_null()) return added;
  if (!config.is_array()) return fail(ErrorCode::invalid_argument, "must be an array");
  if (config.size() > count_max) {
    return fail(ErrorCode::invalid_argument, "{} entries are over the limit of {}", config.size(), count_max);
  }
  std::size_t index = 0, bytes = 0;
  for (const Json& entry : config) {
    const std::string place = fmt::format("[{}]", index++);
    auto token = read_token(entry);
    if (!token) return with_context(token.error(), place);
    if (token->content.empty()) continue;
    bytes += token->content.size();
    if (bytes > content_bytes_sum_max) {
      return fail(ErrorCode::invalid_argument, "{}: the tokens together have more than {} bytes", place,
                  content_bytes_sum_max);
    }
    if (const auto checked = check_id(*token, vocabulary); !checked) return with_context(checked.error(), place);
    if (!added.ids_.emplace(token->content, token->id).second) {
      return fail(ErrorCode::invalid_argument, "{}: \"{}\" is there twice", place, token->content);
    }
    const auto [twin, fresh] = added.tokens_.emplace(token->id, *token);
    if (!fresh) {
      return fail(ErrorCode::invalid_argument, "{}: id {} of \"{}\" is also that of \"{}\"", place, token->id,
                  token->content, twin->second.content);
    }
  }
  CHORUS_TRY_VOID(added.build_finders(config, normalizer));
  return added;
}

Result<void> AddedTokens::build_finders(const Json& config, const Normalizer* normalizer) {
  std::vector<TokenFinder::Token> raw, normalized;
  std::deque<std::string> contents;  // normal forms
  std::size_t bytes = 0;
  // Of two tokens with the same normal form the special one is found, then the earlier one.
  for (const bool special : {true, false}) {
    for (const Json& entry : config) {
      const AddedToken* const token = find(entry["content"].get_ref<const std::string&>());
      if (token == nullptr || token->special != special) continue;
      if (!token->normalized || normalizer == nullptr) {
        (token->normalized ? normalized : raw).push_back({token->content, token->id});
        continue;
      }
      std::string& content = contents.emplace_back(token->content);
      CHORUS_TRY_VOID(normalizer->normalize(content));
      bytes += content.size();
      if (bytes > content_bytes_sum_max) {
        return fail(ErrorCode::invalid_argument, "the tokens' normal forms together have more than {} bytes",
                    content_bytes_sum_max);
      }
      normalized.push_back({content, token->id});
    }
  }
  raw_ = TokenFinder(raw);
  normalized_ = TokenFinder(normalized);
  return {};
}

const AddedToken* AddedTokens::find(std::int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second;
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? nullptr : find(found->second);
}

void AddedTokens::cut_raw(std::string_view text, const std::function<void(const Section&)>& take) const {
  cut(text, true, raw_, take);
}

void AddedTokens::cut_normalized(std::string_view text, bool at_start,
                                 const std::function<void(const Section&)>& take) const {
  cut(text, at_start, normalized_, take);
}

void AddedTokens::cut(std::string_view text, bool at_start, const TokenFinder& finder,
                      const std::function<void(const Section&)>& take) const {
  std::size_t done = 0;  // up to here the text has been handed out
  const auto take_text = [&](std::size_t end) {
    if (done < end) take({std::nullopt, text.substr(done, end - done), at_start && done == 0});
  };
  for (const TokenFinder::Found& found : finder.find_all(text)) {
    const AddedToken& token = tokens_.at(found.id);
    if (token.single_word && touches_word(text, found.begin, found.end)) continue;
    std::size_t begin = found.begin, end = found.end;
    if (token.lstrip) begin = std::max(space_begin(text, begin), done);
    if (token.rstrip) end = space_end(text, end);
    take_text(begin);
    take({token.id, {}, false});
    done = end;
  }
  take_text(text.size());
}

}  // namespace chorus
