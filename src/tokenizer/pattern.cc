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

namespace {

// Of a text with `count` matches of `matched_bytes` together.
Result<std::size_t> replaced_bytes(std::string_view text, std::size_t count, std::size_t matched_bytes,
                                   std::string_view replacement, std::size_t bytes_max) {
  std::size_t bytes = text.size() - matched_bytes, added = 0;
  if (__builtin_mul_overflow(count, replacement.size(), &added) || __builtin_add_overflow(bytes, added, &bytes) ||
      bytes > bytes_max) {
    return fail(ErrorCode::resource_exhausted, "{} replacements of {} bytes make more than {} bytes of a text", count,
                replacement.size(), bytes_max);
  }
  return bytes;
}

// What a decoder does to every token: no list is made of the matches.
Result<std::string> replace_text(std::string_view text, std::string_view wanted, std::string_view replacement,
                                 std::size_t bytes_max) {
  std::size_t at = wanted.empty() ? std::string_view::npos : text.find(wanted);
  if (at == std::string_view::npos) return std::string(text);
  std::size_t count = 0;
  for (std::size_t next = at; next != std::string_view::npos; next = text.find(wanted, next + wanted.size())) ++count;
  CHORUS_TRY(const std::size_t bytes, replaced_bytes(text, count, count * wanted.size(), replacement, bytes_max));
  std::string out;
  out.reserve(bytes);
  std::size_t done = 0;
  for (; at != std::string_view::npos; at = text.find(wanted, done)) {
    out += text.substr(done, at - done);
    out += replacement;
    done = at + wanted.size();
  }
  out += text.substr(done);
  return out;
}

}  // namespace

Result<std::string> replace_all(std::string_view text, const Pattern& pattern, std::string_view replacement,
                                std::size_t bytes_max) {
  if (const std::string* wanted = pattern.text()) return replace_text(text, *wanted, replacement, bytes_max);
  CHORUS_TRY(const std::vector<Span> matches, pattern.find_all(text));
  std::size_t matched_bytes = 0;
  for (const Span& match : matches) matched_bytes += match.end - match.begin;
  CHORUS_TRY(const std::size_t bytes, replaced_bytes(text, matches.size(), matched_bytes, replacement, bytes_max));
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
