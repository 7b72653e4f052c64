#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>
#include <time.h>

#include <array>
#include <new>
#include <optional>

#include "base/check.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode_recent.h"

namespace chorus {
namespace {

constexpr std::size_t pattern_bytes_max = 64 << 10;
constexpr std::size_t jit_stack_bytes_min = 64 << 10;
constexpr std::size_t jit_stack_bytes_max = 64 << 20;
constexpr std::uint32_t heap_kib = 64 << 10;
constexpr std::uint32_t depth_max = 1'000'000;
// Steps of matching, as PCRE2 counts them. A match is first tried with few; each time they do not suffice, with four
// times as many. What all the tries of a text may use together is bounded, so no text takes them for each of its
// places.
constexpr std::uint32_t first_steps = 4096;
constexpr std::uint64_t text_steps = 50'000'000;
// Runs of characters are no steps, so a text's time is bounded too: a pattern of a real tokenizer takes about a
// hundredth.
constexpr double text_seconds = 0.5, seconds_per_byte = 1e-6;
constexpr std::uint32_t matches_per_look = 64;  // between looks at the clock

// What Oniguruma's escapes stand for in Unicode, written so that it may stand inside a [class].
constexpr std::string_view space_set =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view word_set = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view hex_set = "0-9a-fA-F";

struct LongName {
  std::string_view name, category;
};
constexpr std::array<LongName, 16> long_names{{{"Letter", "L"},
                                               {"Number", "N"},
                                               {"Punctuation", "P"},
                                               {"Symbol", "S"},
                                               {"Mark", "M"},
                                               {"Separator", "Z"},
                                               {"Other", "C"},
                                               {"Uppercase_Letter", "Lu"},
                                               {"Lowercase_Letter", "Ll"},
                                               {"Titlecase_Letter", "Lt"},
                                               {"Modifier_Letter", "Lm"},
                                               {"Other_Letter", "Lo"},
                                               {"Decimal_Number", "Nd"},
                                               {"Letter_Number", "Nl"},
                                               {"Other_Number", "No"},
                                               {"Punct", "P"}}};

// The set of \p{NAME}; Oniguruma's script names are the Script property, PCRE2's bare ones are Script_Extensions.
std::string property(std::string_view name, char letter) {
  const bool negated = name.starts_with('^');
  if (negated) name.remove_prefix(1);
  const std::string escape = negated == (letter == 'P') ? "\\p{" : "\\P{";
  for (const LongName& known : long_names) {
    if (known.name == name) return escape + std::string(known.category) + "}";
  }
  if (name.size() <= 2 || name == "Any" || name == "Alphabetic" || name == "Lowercase" || name == "Uppercase") {
    return escape + std::string(name) + "}";
  }
  return escape + "sc:" + std::string(name) + "}";
}

template <std::size_t count>
std::string members(const std::array<CodePointRange, count>& ranges) {
  std::string text;
  for (const CodePointRange& range : ranges) {
    text += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", std::uint32_t{range.first}, std::uint32_t{range.last});
  }
  return text;
}

// A property's members that PCRE2's Unicode version may lack, to be written beside it in a class.
std::string recent_members(std::string_view escape) {
  if (escape == "\\p{L}") return members(recent_letters);
  if (escape == "\\p{N}") return members(recent_numbers);
  if (escape == "\\p{P}") return members(recent_punctuation);
  return "";
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> run() {
    while (at_ < in_.size()) CHORUS_TRY_VOID(step());
    return std::move(out_);
  }

 private:
  Error refuse(std::string_view what) const {
    return fail(ErrorCode::invalid_argument, "regular expression \"{}\": {} at byte {}", in_, what, at_);
  }

  Result<void> step() {
    const char c = in_[at_];
    switch (c) {
      case '\\':
        return escape();
      case '[':
        return bracket();
      case '(':
        // (*NO_JIT), (*LIMIT_MATCH=..) and the like are PCRE2's alone, and some lift its limits.
        if (in_.substr(at_, 2) == "(*") return refuse("(*...) is not supported");
        groups_.push_back(out_.size());
        break;
      case ')':
        if (groups_.empty()) return refuse("unmatched )");
        atom_ = groups_.back();
        groups_.pop_back();
        break;
      case '{':
        return interval();
      case '*':
      case '+':
      case '?':
      case '|':
        break;
      default:
        atom_ = out_.size();
    }
    out_ += c;
    ++at_;
    return {};
  }

  Result<void> escape() {
    if (at_ + 1 >= in_.size()) return refuse("ends in a backslash");
    atom_ = out_.size();
    const char letter = in_[at_ + 1];
    switch (letter) {
      case 's':
        return set(space_set, false);
      case 'S':
        return set(space_set, true);
      case 'w':
        return set(word_set, false);
      case 'W':
        return set(word_set, true);
      case 'h':
        return set(hex_set, false);
      case 'H':
        return set(hex_set, true);
      default:
        return copy_escape(false);
    }
  }

  Result<void> set(std::string_view members, bool negated) {
    out_ += negated ? "[^" : "[";
    out_ += members;
    out_ += ']';
    at_ += 2;
    return {};
  }

  // \p{..}, \u4e00 and every escape that means the same in both.
  Result<void> copy_escape(bool inside_class) {
    const char letter = in_[at_ + 1];
    if ((letter == 'p' || letter == 'P') && in_.substr(at_ + 2, 1) == "{") {
      const std::size_t end = in_.find('}', at_);
      if (end == std::string_view::npos) return refuse("\\p{ without }");
      const std::string escape = property(in_.substr(at_ + 3, end - at_ - 3), letter);
      const std::string recent = recent_members(escape);
      const bool alone = !inside_class && !recent.empty();
      out_ += alone ? "[" + escape + recent + "]" : escape + recent;
      at_ = end + 1;
      return {};
    }
    if (letter == 'u') {
      if (at_ + 6 > in_.size()) return refuse("\\u without four digits");
      out_ += "\\x{" + std::string(in_.substr(at_ + 2, 4)) + "}";
      at_ += 6;
      return {};
    }
    out_ += in_.substr(at_, 2);
    at_ += 2;
    return {};
  }

  // A [class]. A nested plain class adds its members; a nested negated one and && are not supported.
  Result<void> bracket() {
    atom_ = out_.size();
    const std::size_t begin = at_;
    int depth = 0;
    do {
      if (at_ >= in_.size()) return refuse("[ without ]");
      CHORUS_TRY_VOID(bracket_member(begin, depth));
    } while (depth > 0);
    return {};
  }

  Result<void> bracket_member(std::size_t begin, int& depth) {
    const char c = in_[at_];
    if (c == '\\') return bracket_escape();
    if (in_.substr(at_, 2) == "&&") return refuse("the intersection && of character classes is not supported");
    if (in_.substr(at_, 2) == "[:" && depth > 0) {
      const std::size_t end = in_.find(":]", at_);
      if (end == std::string_view::npos) return refuse("[: without :]");
      out_ += in_.substr(at_, end + 2 - at_);
      at_ = end + 2;
      return {};
    }
    if (c == '[' && ++depth > 1) {
      if (in_.substr(at_ + 1, 1) == "^") return refuse("a negated class inside a class is not supported");
      ++at_;
      return {};
    }
    const bool first = at_ == begin + 1 || (at_ == begin + 2 && in_[begin + 1] == '^');
    if (c == ']' && !first && --depth > 0) {
      ++at_;
      return {};
    }
    out_ += c;
    ++at_;
    return {};
  }

  Result<void> bracket_escape() {
    if (at_ + 1 >= in_.size()) return refuse("ends in a backslash");
    const char letter = in_[at_ + 1];
    const std::string_view members = letter == 's'   ? space_set
                                     : letter == 'w' ? word_set
                                     : letter == 'h' ? hex_set
                                                     : std::string_view();
    if (members.empty()) return copy_escape(true);
    out_ += members;
    at_ += 2;
    return {};
  }

  // x{1,3}+ is a repeated x{1,3} in Ruby's syntax, but possessive in PCRE2's: then the atom is put into a group.
  Result<void> interval() {
    const std::size_t end = in_.find('}', at_);
    const bool counts = end != std::string_view::npos && end > at_ + 1 &&
                        in_.substr(at_ + 1, end - at_ - 1).find_first_not_of("0123456789,") == std::string_view::npos;
    if (!counts) {
      out_ += "\\{";
      ++at_;
      return {};
    }
    std::string_view text = in_.substr(at_, end + 1 - at_);
    out_ += text.starts_with("{,") ? "{0" + std::string(text.substr(1)) : std::string(text);
    at_ = end + 1;
    if (at_ < in_.size() && in_[at_] == '+') {
      out_.insert(atom_, "(?:");
      out_ += ')';
    }
    return {};
  }

  std::string_view in_;
  std::size_t at_ = 0;
  std::string out_;
  std::size_t atom_ = 0;  // where in out_ the last atom begins
  std::vector<std::size_t> groups_;
};

struct ContextFree {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};
template <typename T>
using Owned = std::unique_ptr<T, ContextFree>;

std::string describe(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

Result<std::string> translate_oniguruma(std::string_view pattern) {
  return Translator(pattern).run();
}

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string pattern;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Result<Regex> Regex::compile(std::string_view pattern) {
  if (pattern.size() > pattern_bytes_max) {
    return fail(ErrorCode::invalid_argument, "regular expression of {} bytes is over the limit of {}", pattern.size(),
                pattern_bytes_max);
  }
  CHORUS_TRY(const std::string translated, translate_oniguruma(pattern));
  const Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  CHECK(context != nullptr);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int code = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Code>();
  compiled->pattern = pattern;
  // In Ruby's syntax ^ and $ are always those of lines.
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset, context.get());
  if (compiled->code == nullptr) {
    return fail(ErrorCode::invalid_argument, "regular expression \"{}\": {}", pattern, describe(code));
  }
  pcre2_jit_compile(compiled->code,
                    PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter gives the same matches
  Regex regex;
  regex.code_ = std::move(compiled);
  return regex;
}

namespace {

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// One text's search: its limits, and what it has used of them.
class Search {
 public:
  Search(const pcre2_code* code, std::string_view text)
      : code_(code),
        text_(text),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        seconds_max_(text_seconds + seconds_per_byte * static_cast<double>(text.size())) {
    if (data_ == nullptr || context_ == nullptr) throw std::bad_alloc();
    pcre2_set_heap_limit(context_.get(), heap_kib);
    pcre2_set_depth_limit(context_.get(), depth_max);
    pcre2_set_match_limit(context_.get(), first_steps);
  }

  // PCRE2's code: of the match from `from` on, of none, or of a limit.
  int match(std::size_t from) {
    std::uint32_t steps = first_steps;
    int code = try_match(from);
    while (code == PCRE2_ERROR_MATCHLIMIT) {
      steps *= 4;
      steps_used_ += steps;
      if (steps_used_ > text_steps || out_of_time()) break;
      pcre2_set_match_limit(context_.get(), steps);
      code = try_match(from);
    }
    if (steps != first_steps) pcre2_set_match_limit(context_.get(), first_steps);
    if (++matches_ % matches_per_look == 0 && out_of_time()) return PCRE2_ERROR_MATCHLIMIT;
    return code;
  }

  Span found() const {
    const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(data_.get());
    return {ends[0], ends[1]};
  }

 private:
  int try_match(std::size_t from) {
    for (;;) {
      const int code = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), from,
                                   PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
      if (code != PCRE2_ERROR_JIT_STACKLIMIT || stack_ != nullptr) return code;
      stack_.reset(pcre2_jit_stack_create(jit_stack_bytes_min, jit_stack_bytes_max, nullptr));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
    }
  }

  // The clock starts with the first look, so that a text of few matches never asks for it.
  bool out_of_time() {
    const double now = thread_seconds();
    if (begin_seconds_ < 0) begin_seconds_ = now;
    return now - begin_seconds_ > seconds_max_;
  }

  const pcre2_code* code_;
  std::string_view text_;
  Owned<pcre2_match_data> data_;
  Owned<pcre2_match_context> context_;
  Owned<pcre2_jit_stack> stack_;
  double seconds_max_;
  double begin_seconds_ = -1;  // of the first look
  std::uint64_t steps_used_ = 0;
  std::uint32_t matches_ = 0;
};

}  // namespace

Result<std::vector<Span>> Regex::find_all(std::string_view text) const {
  Search search(code_->code, text);
  std::vector<Span> matches;
  std::optional<std::size_t> last_end;
  std::size_t from = 0;
  while (from <= text.size()) {
    const int code = search.match(from);
    if (code == PCRE2_ERROR_NOMATCH) break;
    if (code < 0) {
      return fail(ErrorCode::resource_exhausted, "regular expression \"{}\" on {} bytes of text: {}", code_->pattern,
                  text.size(), describe(code));
    }
    const Span match = search.found();
    if (match.begin > match.end || match.begin < from) {  // \K in a look-around that a group hides
      return fail(ErrorCode::invalid_argument, "regular expression \"{}\": a match begins behind its end",
                  code_->pattern);
    }
    if (match.begin == match.end && last_end == match.end) {
      from += from < text.size() ? character_at(text, from).size : 1;
      continue;
    }
    matches.push_back(match);
    from = match.end;
    last_end = match.end;
  }
  return matches;
}

}  // namespace chorus
