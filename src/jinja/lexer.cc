#include "jinja/lexer.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <array>
#include <optional>

#include "jinja/budget.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

constexpr std::array<std::string_view, 25> symbols = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "/",
                                                      "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                      ">",  "<",  "=",  ".",  ":",  "|",  ","};

// The tree of a template takes up to 400 bytes per token.
constexpr std::size_t tokens_max = 300'000;
constexpr std::size_t name_bytes_max = 1000;
constexpr std::size_t source_bytes_max = 16u << 20;

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) read_data();
    add(TokenType::end, "");
    return std::move(tokens_);
  }

 private:
  bool looking_at(std::string_view text, std::size_t at) const {
    return at < source_.size() && source_.compare(at, text.size(), text) == 0;
  }
  bool looking_at(std::string_view text) const { return looking_at(text, at_); }

  [[noreturn]] void fail(const std::string& message) const {
    throw TemplateError{ErrorCode::invalid_argument, "TemplateSyntaxError", message, line_};
  }

  void add(TokenType type, std::string text) {
    if (tokens_.size() >= tokens_max) fail(fmt::format("the template has more than {} tokens", tokens_max));
    tokens_.push_back({type, std::move(text), line_});
  }

  void advance(std::size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  // Position after the white space (Unicode's too) from `at` on.
  std::size_t skip_space(std::size_t at) const {
    const std::string_view rest = std::string_view(source_).substr(at);
    return source_.size() - strip_left(rest).size();
  }

  // After `at` ('-%}' or '+%}' or '%}' begins there): the end of that delimiter with the white space that it takes
  // along.
  std::optional<std::size_t> block_close(std::size_t at, std::string_view close) const {
    if (looking_at("-", at) && looking_at(close, at + 1)) return skip_space(at + 1 + close.size());
    if (looking_at("+", at) && looking_at(close, at + 1)) return at + 1 + close.size();
    if (!looking_at(close, at)) return std::nullopt;
    const std::size_t end = at + close.size();
    return looking_at("\n", end) ? end + 1 : end;  // trim_blocks
  }

  // Text before a tag, cut by the tag's sign or by lstrip_blocks.
  std::string_view cut_before_tag(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') return strip_right(text);
    if (sign == '+' || is_variable) return text;
    const std::size_t newline = text.rfind('\n');
    const std::size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && !line_starting_) return text;
    return strip_left(text.substr(line_start)).empty() ? text.substr(0, line_start) : text;
  }

  // `{%- raw -%}`: position after it, if that is what begins at `at`.
  std::optional<std::size_t> raw_begin(std::size_t at) const {
    std::size_t end = at + 2;
    if (looking_at("-", end) || looking_at("+", end)) ++end;
    end = skip_space(end);
    if (!looking_at("raw", end)) return std::nullopt;
    end = skip_space(end + 3);
    if (looking_at("-%}", end)) return skip_space(end + 3);
    if (looking_at("%}", end)) return end + 2;
    return std::nullopt;
  }

  void read_data() {
    std::size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add(TokenType::data, source_.substr(at_));
        return advance(source_.size());
      }
      if (source_[tag + 1] == '%' || source_[tag + 1] == '{' || source_[tag + 1] == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign =
        tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+') ? source_[tag + 2] : ' ';
    const std::string_view before = std::string_view(source_).substr(at_, tag - at_);
    const std::string_view kept = cut_before_tag(before, sign, kind == '{');
    if (!kept.empty()) add(TokenType::data, std::string(kept));
    const auto raw = kind == '%' ? raw_begin(tag) : std::nullopt;
    advance(tag);
    if (raw) return read_raw(*raw);
    if (kind == '#') return read_comment();
    const bool is_block = kind == '%';
    add(is_block ? TokenType::block_begin : TokenType::variable_begin, "");
    advance(tag + (sign == ' ' ? 2 : 3));
    read_code(is_block);
  }

  void note_line_start() { line_starting_ = source_[at_ - 1] == '\n'; }

  void read_comment() {
    const std::size_t begin = at_ + (looking_at("-", at_ + 2) || looking_at("+", at_ + 2) ? 3 : 2);
    for (std::size_t i = source_.find('#', begin); i != std::string::npos; i = source_.find('#', i + 1)) {
      if (!looking_at("#}", i)) continue;
      const bool signed_end = i > begin && (source_[i - 1] == '-' || source_[i - 1] == '+');
      const auto end = block_close(signed_end ? i - 1 : i, "#}");
      advance(*end);
      return note_line_start();
    }
    if (begin < source_.size()) fail("Missing end of comment tag");
    advance(source_.size());  // jinja2 lets a comment begin at the very end
  }

  void read_raw(std::size_t begin) {
    advance(begin);
    for (std::size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      std::size_t word = tag + 2;
      const char sign = looking_at("-", word) || looking_at("+", word) ? source_[word] : ' ';
      if (sign != ' ') ++word;
      word = skip_space(word);
      if (!looking_at("endraw", word)) continue;
      const auto end = block_close(skip_space(word + 6), "%}");
      if (!end) continue;
      line_starting_ = source_[at_ - 1] == '\n';
      const std::string_view kept = cut_before_tag(std::string_view(source_).substr(at_, tag - at_), sign, false);
      if (!kept.empty()) add(TokenType::data, std::string(kept));
      advance(*end);
      return note_line_start();
    }
    fail("Missing end of raw directive");
  }

  void read_code(bool is_block) {
    std::string open;  // brackets to be closed
    for (;;) {
      advance(skip_space(at_));
      if (at_ >= source_.size()) fail("unexpected end of template: a tag is not closed");
      if (open.empty()) {
        const auto end = is_block ? block_close(at_, "%}") : variable_close();
        if (end) {
          add(is_block ? TokenType::block_end : TokenType::variable_end, "");
          advance(*end);
          return note_line_start();
        }
      }
      read_token(&open);
    }
  }

  std::optional<std::size_t> variable_close() const {
    if (looking_at("-}}")) return skip_space(at_ + 3);
    if (looking_at("}}")) return at_ + 2;
    return std::nullopt;
  }

  void read_token(std::string* open) {
    const char c = source_[at_];
    if (is_digit(c)) return read_number();
    if (c == '\'' || c == '"') return read_string(c);
    if (read_name()) return;
    for (const std::string_view symbol : symbols) {
      if (!looking_at(symbol)) continue;
      check_balance(symbol[0], open);
      add(TokenType::symbol, std::string(symbol));
      return advance(at_ + symbol.size());
    }
    fail(fmt::format("unexpected char {} at {}", shown(std::string_view(source_).substr(at_, 1)), at_));
  }

  void check_balance(char symbol, std::string* open) const {
    const std::string_view opening = "([{";
    const std::string_view closing = ")]}";
    if (opening.find(symbol) != std::string_view::npos) open->push_back(symbol);
    const std::size_t closes = closing.find(symbol);
    if (closes == std::string_view::npos) return;
    if (open->empty()) fail(fmt::format("unexpected '{}'", symbol));
    if (open->back() != opening[closes])
      fail(fmt::format("unexpected '{}', expected the end of '{}'", symbol, open->back()));
    open->pop_back();
  }

  // Digits with single underscores between them, of the given base; the position after them.
  std::size_t digits_end(std::size_t at, int base) const {
    const auto is_of_base = [&](std::size_t i) {
      if (i >= source_.size()) return false;
      const char c = source_[i];
      if (base == 16) return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      return c >= '0' && c < '0' + base;
    };
    while (is_of_base(at) || (at < source_.size() && source_[at] == '_' && is_of_base(at + 1))) ++at;
    return at;
  }

  void read_number() {
    const char prefix = at_ + 1 < source_.size() ? static_cast<char>(source_[at_ + 1] | 0x20) : ' ';
    const int base = source_[at_] != '0' ? 10 : prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
    std::size_t end = base == 10 ? digits_end(at_, 10) : digits_end(at_ + 2, base);
    bool is_real = false;
    if (base == 10 && !(at_ > 0 && source_[at_ - 1] == '.')) {
      if (looking_at(".", end) && end + 1 < source_.size() && is_digit(source_[end + 1])) {
        end = digits_end(end + 1, 10);
        is_real = true;
      }
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        const std::size_t sign = looking_at("+", end + 1) || looking_at("-", end + 1) ? 1 : 0;
        if (end + 1 + sign < source_.size() && is_digit(source_[end + 1 + sign])) {
          end = digits_end(end + 1 + sign, 10);
          is_real = true;
        }
      }
    }
    std::string text = source_.substr(at_, end - at_);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    add(is_real ? TokenType::real : TokenType::integer, std::move(text));
    advance(end);
  }

  bool read_name() {
    std::size_t end = at_;
    for (std::size_t next = end; next < source_.size(); end = next) {
      const auto c = static_cast<UChar32>(next_code_point(source_, &next));
      const bool first = end == at_;
      if (c != '_' && !u_hasBinaryProperty(c, first ? UCHAR_XID_START : UCHAR_XID_CONTINUE)) break;
    }
    if (end == at_) return false;
    if (end - at_ > name_bytes_max) fail(fmt::format("a name of more than {} bytes", name_bytes_max));
    add(TokenType::name, source_.substr(at_, end - at_));
    advance(end);
    return true;
  }

  void read_string(char mark) {
    std::size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != mark) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("unexpected end of template: a string is not closed");
    add(TokenType::string, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1);
  }

  // Python's string escapes.
  std::string unescape(std::string_view text) const {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 >= text.size()) {
        out.push_back(text[i]);
        continue;
      }
      const char c = text[++i];
      static constexpr std::string_view from = "\\'\"abfnrtv";
      static constexpr std::string_view to = "\\'\"\a\b\f\n\r\t\v";
      const std::size_t known = from.find(c);
      if (known != std::string_view::npos) {
        out.push_back(to[known]);
      } else if (c == '\n') {  // a line continued
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        i = append_code_point(text, i + 1, digits, 16, digits, &out) - 1;
      } else if (c >= '0' && c <= '7') {
        i = append_code_point(text, i, 3, 8, 1, &out) - 1;
      } else {
        out.push_back('\\');
        out.push_back(c);
      }
    }
    return out;
  }

  // Reads up to `digits` digits; fewer than `needed` are an error. The position after them.
  std::size_t append_code_point(std::string_view text, std::size_t at, std::size_t digits, int base, std::size_t needed,
                                std::string* out) const {
    std::uint32_t number = 0;
    std::size_t read = 0;
    for (; read < digits && at + read < text.size(); ++read) {
      const char c = text[at + read];
      const char lower = static_cast<char>(c | 0x20);
      int digit = is_digit(c) ? c - '0' : (lower >= 'a' && lower <= 'f') ? lower - 'a' + 10 : 99;
      if (digit >= base) break;
      number = number * static_cast<std::uint32_t>(base) + static_cast<std::uint32_t>(digit);
    }
    if (read < needed || number > 0x10ffff) fail("a string has a truncated or illegal escape");
    append_utf8(static_cast<char32_t>(number), out);
    return at + read;
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (!is_utf8(source)) raise("TemplateSyntaxError", "the template is not valid UTF-8");
  if (source.size() > source_bytes_max) {
    raise("TemplateSyntaxError", "the template has more than {} bytes", source_bytes_max);
  }
  return Lexer(normalize_newlines(source)).run();
}

}  // namespace chorus::jinja
