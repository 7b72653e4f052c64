// Unigram language model (Kudo, "Subword regularization", 2018, section 3.2): of all ways to cut a piece into tokens
// the one with the largest sum of scores. The "model" part of tokenizer.json, as the `tokenizers` package has it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/string_table.h"

namespace simdjson::dom {
class element;
}

namespace chorus {

// Immutable after load; any number of threads.
class Unigram {
 public:
  // Errors name the entry: "model.vocab[17]: ...".
  static Result<Unigram> load(const simdjson::dom::element& model);

  // Appends the ids of one piece of UTF-8. A character that no token has is unknown; unknown ones side by side are one,
  // or, with byte fallback, their bytes. Without an unknown token they give nothing.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;

  const StringTable& vocabulary() const { return vocabulary_; }

  static constexpr std::size_t tokens_max = std::size_t{4} << 20;
  static constexpr std::size_t token_bytes_max = 256;  // bounds the work for each position of a text

 private:
  // The best way to cut the text up to some place: its score, its last token and where that begins.
  struct Cut {
    double score = 0;
    std::int32_t id = StringTable::none;  // none: unknown
    std::int32_t begin = -1;              // -1: no way leads here
  };
  Result<void> load_vocabulary(const simdjson::dom::element& model);
  void sort_tokens();
  void extend(std::string_view text, std::size_t begin, std::vector<Cut>& cuts) const;
  void add_unknown(std::string_view text, std::vector<std::int32_t>& ids) const;

  StringTable vocabulary_;
  std::vector<double> scores_;          // by id
  std::vector<std::int32_t> sorted_;    // ids by their tokens' bytes
  std::vector<std::int32_t> begin_of_;  // [257]: where the tokens of each first byte begin in sorted_
  double unknown_score_ = 0;
  std::optional<std::int32_t> unknown_;
  std::vector<std::int32_t> fallback_;  // byte -> id of "<0xNN>"; empty unless it is wanted and all 256 are there
};

}  // namespace chorus
