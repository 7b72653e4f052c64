// The Split patterns that nearly all byte-level tokenizers share, written out by hand: several times the speed of a
// regular expression engine. The tests hold them to Regex on random text.
#pragma once

#include <cstddef>
#include <string_view>

namespace chorus {

// Where the word that begins at `at` < text.size() ends; `text` is UTF-8. The patterns cover every text without gaps.
using SplitScanner = std::size_t (*)(std::string_view text, std::size_t at);

// GPT-2's pattern, built into the ByteLevel pre-tokenizer.
extern const std::string_view gpt2_pattern;
std::size_t scan_gpt2_word(std::string_view text, std::size_t at);

// The scanner for exactly this pattern, or nullptr.
SplitScanner find_split_scanner(std::string_view pattern);

}  // namespace chorus
