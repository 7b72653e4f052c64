// The "pattern" of Split and Replace: {"Regex": ".."} or {"String": ".."}, or a rule on single characters.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "json/json.h"
#include "tokenizer/regex.h"

namespace chorus {

class Pattern {
 public:
  using CharacterRule = bool (*)(char32_t);

  // From {"pattern": ...}.
  static Result<Pattern> load(const Json& owner);
  static Result<Pattern> from_regex(std::string_view regex);
  static Pattern from_text(std::string text);
  static Pattern from_rule(CharacterRule rule);  // each character that the rule holds for is a match

  // From left to right, none overlapping. No match is made for an empty string.
  Result<std::vector<Span>> find_all(std::string_view text) const;
  // The text that it is; nullptr for the other kinds.
  const std::string* text() const { return std::get_if<std::string>(&kind_); }
  // The regular expression as it was written; empty for the other kinds.
  const std::string& regex_source() const { return source_; }

 private:
  std::variant<Regex, std::string, CharacterRule> kind_;
  std::string source_;
};

// The whole text with each match replaced; an error if that has more bytes than `bytes_max`.
Result<std::string> replace_all(std::string_view text, const Pattern& pattern, std::string_view replacement,
                                std::size_t bytes_max);

}  // namespace chorus
