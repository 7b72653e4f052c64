// The "added_tokens" part of tokenizer.json: strings that are found in the text itself and never split.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "json/json.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/string_table.h"
#include "tokenizer/token_finder.h"

namespace chorus {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // swallows white space to its left
  bool rstrip = false;       // and to its right
  bool normalized = false;   // looked for in normalized text, in its own normalized form
  bool special = false;
};

// Either a token's id, or text between tokens.
struct Section {
  std::optional<std::int32_t> id;
  std::string_view text;
  bool at_start = false;
};

class AddedTokens {
 public:
  // `config`: the JSON array, or null. A token that the vocabulary has must have its id; another id must be free.
  static Result<AddedTokens> load(const Json& config, const StringTable& vocabulary, const Normalizer* normalizer,
                                  std::size_t count_max);

  // Cuts raw text at the tokens that are looked for before normalization.
  void cut_raw(std::string_view text, const std::function<void(const Section&)>& take) const;
  // Cuts normalized text at the others. `at_start`: of the whole of `text`.
  void cut_normalized(std::string_view text, bool at_start, const std::function<void(const Section&)>& take) const;

  const AddedToken* find(std::int32_t id) const;
  const AddedToken* find(std::string_view content) const;
  std::int32_t id_end() const { return tokens_.empty() ? 0 : tokens_.rbegin()->first + 1; }
  const std::map<std::int32_t, AddedToken>& all() const { return tokens_; }

 private:
  Result<void> build_finders(const Json& config, const Normalizer* normalizer);
  void cut(std::string_view text, bool at_start, const TokenFinder& finder,
           const std::function<void(const Section&)>& take) const;

  std::map<std::int32_t, AddedToken> tokens_;
  std::map<std::string, std::int32_t, std::less<>> ids_;
  TokenFinder raw_, normalized_;
};

}  // namespace chorus
