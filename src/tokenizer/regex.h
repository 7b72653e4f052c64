// Regular expressions as tokenizer.json means them: Oniguruma's Ruby syntax over Unicode, run by PCRE2 with JIT.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chorus {

struct Span {
  std::size_t begin, end;  // bytes, end exclusive
};

// Immutable: any number of threads may search with one.
class Regex {
 public:
  // The error quotes the pattern and says what is wrong with it.
  static Result<Regex> compile(std::string_view pattern);
  // All matches from left to right, none overlapping; an empty match directly behind another match is left out.
  // `text` is UTF-8. Fails when matching needs more stack or steps than is allowed (a hostile pattern).
  Result<std::vector<Span>> find_all(std::string_view text) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

// Oniguruma's pattern in PCRE2's words: \s \w \h mean other sets, scripts are plain scripts, {n,m}+ is no possessive.
Result<std::string> translate_oniguruma(std::string_view pattern);

}  // namespace chorus
