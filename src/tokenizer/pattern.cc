#include "tokenizer/pattern.h"

#include "tokenizer/json_fields.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

std::vector<Span> find_text(std::string_view text, std::string_view wanted) {
  std::vector<Span> found;
  if (wanted.empty()) return found;
  for (std::size_t at = text.find(wanted); at != std::string_view::npos; at = text.find(wanted, at + wanted.size())) {
    found.push_back({at, at + wanted.size()});
  }
  return found;
}

std::vector<Span> find_characters(std::string_view text, Pattern::CharacterRule rule) {
  std::vector<Span> found;
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    if (rule(character.code_point)) found.push_back({at, at + character.size});
    at += character.size;
  }
  return found;
}

}  // namespace

Result<Pattern> Pattern::load(const Json& owner) {
  const Json* const pattern = find_field(owner, "pattern");
  if (pattern != nullptr && find_field(*pattern, "Regex") != nullptr) {
    CHORUS_TRY(const std::string regex, read_string(*pattern, "Regex"));
    return from_regex(regex);
  }
  if (pattern != nullptr && find_field(*pattern, "String") != nullptr) {
    CHORUS_TRY(std::string text, read_string(*pattern, "String"));
    return from_text(std::move(text));
  }
  return fail(ErrorCode::invalid_argument, "pattern: must be {{\"Regex\": ..}} or {{\"String\": ..}}");
}

Result<Pattern> Pattern::from_regex(std::string_view regex) {
  CHORUS_TRY(Regex compiled, Regex::compile(regex));
  Pattern pattern;
  pattern.kind_ = std::move(compiled);
  pattern.source_ = regex;
  return pattern;
}

Pattern Pattern::from_text(std::string text) {
  Pattern pattern;
  pattern.kind_ = std::move(text);
  return pattern;
}

Pattern Pattern::from_rule(CharacterRule rule) {
  Pattern pattern;
  pattern.kind_ = rule;
  return pattern;
}

Result<std::vector<Span>> Pattern::find_all(std::string_view text) const {
  if (const auto* regex = std::get_if<Regex>(&kind_)) return regex->find_all(text);
  if (const auto* wanted = std::get_if<std::string>(&kind_)) return find_text(text, *wanted);
  return find_characters(text, std::get<CharacterRule>(kind_));
}

Result<std::string> replace_all(std::string_view text, const Pattern& pattern, std::string_view replacement,
                                std::size_t bytes_max) {
  CHORUS_TRY(const std::vector<Span> matches, pattern.find_all(text));
  std::size_t bytes = text.size(), added = 0;
  for (const Span& match : matches) bytes -= match.end - match.begin;
  if (__builtin_mul_overflow(matches.size(), replacement.size(), &added) ||
      __builtin_add_overflow(bytes, added, &bytes) || bytes > bytes_max) {
    return fail(ErrorCode::resource_exhausted, "{} replacements of {} bytes make more than {} bytes of a text",
                matches.size(), replacement.size(), bytes_max);
  }
  std::string out;
  out.reserve(bytes);
  std::size_t done = 0;
  for (const Span& match : matches) {
    out += text.substr(done, match.begin - done);
    out += replacement;
    done = match.end;
  }
  out += text.substr(done);
  return out;
}

}  // namespace chorus
