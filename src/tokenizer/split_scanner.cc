#include "tokenizer/split_scanner.h"

#include <array>
#include <limits>

#include "tokenizer/unicode.h"

namespace chorus {

const std::string_view gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Llama 3 (cl100k's shape), with digits in threes; Qwen2 takes one digit at a time.
constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();

class Scanner {
 public:
  Scanner(std::string_view text, const CharClasses& classes) : text_(text), classes_(classes) {}

  struct Seen {
    std::uint8_t kind;
    std::uint32_t size;
  };
  Seen look(std::size_t at) const {
    const Character character = character_at(text_, at);
    return {classes_.of(character.code_point), character.size};
  }
  bool is(std::size_t at, std::uint8_t kind) const { return at < text_.size() && look(at).kind == kind; }

  // The end of the run of characters of one class, at most `limit` of them.
  std::size_t run_end(std::size_t at, std::uint8_t kind, std::size_t limit = unlimited) const {
    for (; limit > 0 && at < text_.size(); --limit) {
      const Seen seen = look(at);
      if (seen.kind != kind) break;
      at += seen.size;
    }
    return at;
  }

  std::size_t newlines_end(std::size_t at) const {
    while (at < text_.size() && (text_[at] == '\r' || text_[at] == '\n')) ++at;
    return at;
  }

  // 's 't 're 've 'm 'll 'd behind the apostrophe at `at`: its end, or `at` if there is none.
  std::size_t contraction_end(std::size_t at, bool any_case) const {
    const auto letter = [&](std::size_t n) -> char {
      if (at + n >= text_.size()) return '\0';
      const char c = text_[at + n];
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    const char first = letter(1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
    const char second = letter(2);
    if ((first == 'r' || first == 'v') && second == 'e') return at + 3;
    if (first == 'l' && second == 'l') return at + 3;
    // U+017F, the long s, is an "s" where case does not count.
    if (any_case && text_.substr(at + 1, 2) == "\xC5\xBF") return at + 3;
    return at;
  }

  // \s+(?!\S)|\s+ : a run of white space, without its last character if something follows and it is not the only one.
  // With `newline_first`, \s*[\r\n]+ comes before: up to the run's last line end.
  std::size_t space_end(std::size_t at, bool newline_first) const {
    std::size_t end = at, last = at, newline_end = at;
    while (end < text_.size()) {
      const Seen seen = look(end);
      if (!(seen.kind & class_space)) break;
      last = end;
      end += seen.size;
      if (seen.kind == class_newline) newline_end = end;
    }
    if (newline_first && newline_end > at) return newline_end;
    return end < text_.size() && last > at ? last : end;
  }

 private:
  std::string_view text_;
  const CharClasses& classes_;
};

template <std::size_t digits_max>
std::size_t scan_llama3_word(std::string_view text, std::size_t at) {
  const Scanner scan(text, CharClasses::get());
  const Scanner::Seen seen = scan.look(at);
  if (text[at] == '\'') {
    if (const std::size_t end = scan.contraction_end(at, true); end > at) return end;
  }
  const std::size_t next = at + seen.size;
  if (seen.kind == class_letter) return scan.run_end(next, class_letter);
  if (seen.kind == class_number) return scan.run_end(next, class_number, digits_max - 1);
  if (seen.kind != class_newline && scan.is(next, class_letter)) return scan.run_end(next, class_letter);
  if (seen.kind == class_other || (text[at] == ' ' && scan.is(next, class_other))) {
    return scan.newlines_end(scan.run_end(next, class_other));
  }
  return scan.space_end(at, true);
}

}  // namespace

std::size_t scan_gpt2_word(std::string_view text, std::size_t at) {
  const Scanner scan(text, CharClasses::get());
  if (text[at] == '\'') {
    if (const std::size_t end = scan.contraction_end(at, false); end > at) return end;
  }
  Scanner::Seen seen = scan.look(at);
  std::size_t begin = at;
  if (text[at] == ' ' && at + 1 < text.size()) {
    const Scanner::Seen next = scan.look(at + 1);
    if (!(next.kind & class_space)) {
      seen = next;
      begin = at + 1;
    }
  }
  if (!(seen.kind & class_space)) return scan.run_end(begin, seen.kind);
  return scan.space_end(at, false);
}

SplitScanner find_split_scanner(std::string_view pattern) {
  struct Known {
    std::string_view pattern;
    SplitScanner scanner;
  };
  static const std::array<Known, 3> known_patterns{
      {{gpt2_pattern, scan_gpt2_word}, {llama3_pattern, scan_llama3_word<3>}, {qwen2_pattern, scan_llama3_word<1>}}};
  for (const Known& known : known_patterns) {
    if (known.pattern == pattern) return known.scanner;
  }
  return nullptr;
}

}  // namespace chorus
