#include "tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <vector>

#include "tokenizer/json_fields.h"
#include "tokenizer/pattern.h"
#include "tokenizer/split_scanner.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

using Loaded = Result<std::unique_ptr<const PreTokenizer>>;

// Steps that write another text than they read, ByteLevel and Metaspace: each may double it, so there may be few.
constexpr int rewrites_max = 4;

struct LoadState {
  PipelineSteps steps;
  int rewrites = 0;
  Result<void> rewrite() {
    if (++rewrites <= rewrites_max) return {};
    return fail(ErrorCode::invalid_argument, "more than {} steps that change the text", rewrites_max);
  }
};

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct Part {
  Span span;
  bool match;
};

// The matches and the gaps between them, in order.
std::vector<Part> parts_of(std::string_view text, const std::vector<Span>& matches, bool invert) {
  std::vector<Part> parts;
  parts.reserve(matches.size() * 2 + 1);
  std::size_t done = 0;
  for (const Span& match : matches) {
    if (done < match.begin) parts.push_back({{done, match.begin}, invert});
    parts.push_back({match, !invert});
    done = match.end;
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, invert});
  return parts;
}

// Joins neighbours as the behavior says. A match joins one gap at most: of "a  b" with MergedWithNext comes "a", " ", "
// b".
std::vector<Part> join(std::vector<Part> parts, Behavior behavior) {
  const bool backwards = behavior == Behavior::merged_with_next;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> joined;
  bool previous_match = false;
  for (const Part& part : parts) {
    const bool merges = behavior == Behavior::contiguous ? part.match == previous_match : part.match && !previous_match;
    if (merges && !joined.empty()) {
      Span& last = joined.back().span;
      last = {std::min(last.begin, part.span.begin), std::max(last.end, part.span.end)};
    } else {
      joined.push_back(part);
    }
    previous_match = part.match;
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  return joined;
}

void hand_out(const Piece& piece, Span span, PieceSink& sink) {
  if (span.begin == span.end) return;
  sink.take({piece.text.substr(span.begin, span.end - span.begin), piece.at_start && span.begin == 0});
}

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void split(const Piece& piece, PieceSink& sink) const override {
    auto matches = pattern_.find_all(piece.text);
    if (!matches) return sink.refuse(matches.error());
    std::vector<Part> parts = parts_of(piece.text, *matches, invert_);
    if (behavior_ != Behavior::isolated && behavior_ != Behavior::removed) parts = join(std::move(parts), behavior_);
    for (const Part& part : parts) {
      if (behavior_ != Behavior::removed || !part.match) hand_out(piece, part.span, sink);
    }
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

void scan(const Piece& piece, SplitScanner scanner, PieceSink& sink) {
  for (std::size_t at = 0; at < piece.text.size();) {
    const std::size_t end = scanner(piece.text, at);
    hand_out(piece, {at, end}, sink);
    at = end;
  }
}

class ScannedSplit : public PreTokenizer {
 public:
  explicit ScannedSplit(SplitScanner scanner) : scanner_(scanner) {}
  void split(const Piece& piece, PieceSink& sink) const override { scan(piece, scanner_, sink); }

 private:
  SplitScanner scanner_;
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, bool raw_bytes)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex), raw_bytes_(raw_bytes) {}

  void split(const Piece& piece, PieceSink& sink) const override {
    std::string prefixed;
    Piece whole = piece;
    if (add_prefix_space_ && !piece.text.starts_with(' ')) {
      prefixed += ' ';
      prefixed += piece.text;
      whole.text = prefixed;
    }
    for (std::size_t at = 0; at < whole.text.size();) {
      const std::size_t end = use_regex_ ? scan_gpt2_word(whole.text, at) : whole.text.size();
      if (raw_bytes_) {
        hand_out(whole, {at, end}, sink);
      } else {
        sink.take({to_byte_level(whole.text.substr(at, end - at)), whole.at_start && at == 0});
      }
      at = end;
    }
  }

 private:
  bool add_prefix_space_, use_regex_, raw_bytes_;
};

class Metaspace : public PreTokenizer {
 public:
  enum class PrependScheme { first, always, never };

  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  void split(const Piece& piece, PieceSink& sink) const override {
    std::string text;
    text.reserve(piece.text.size() * 2);
    for (const char c : piece.text) {
      if (c == ' ') {
        text += replacement_;
      } else {
        text += c;
      }
    }
    const bool wanted = scheme_ == PrependScheme::always || (scheme_ == PrependScheme::first && piece.at_start);
    if (wanted && !text.starts_with(replacement_)) text.insert(0, replacement_);
    const Piece whole{text, piece.at_start};
    std::size_t begin = 0;
    while (split_) {
      const std::size_t end = text.find(replacement_, begin + 1);
      if (end == std::string::npos) break;
      hand_out(whole, {begin, end}, sink);
      begin = end;
    }
    hand_out(whole, {begin, text.size()}, sink);
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class SequencePreTokenizer : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(std::vector<std::unique_ptr<const PreTokenizer>> parts) : parts_(std::move(parts)) {}
  void split(const Piece& piece, PieceSink& sink) const override { run(0, piece, sink); }

 private:
  // Each piece of one step goes straight through the steps behind it.
  class Onward : public PieceSink {
   public:
    Onward(const SequencePreTokenizer& owner, std::size_t step, PieceSink& sink)
        : owner_(owner), step_(step), sink_(sink) {}
    void take(const Piece& piece) override { owner_.run(step_, piece, sink_); }
    void refuse(Error error) override { sink_.refuse(std::move(error)); }

   private:
    const SequencePreTokenizer& owner_;
    std::size_t step_;
    PieceSink& sink_;
  };

  void run(std::size_t step, const Piece& piece, PieceSink& sink) const {
    if (step == parts_.size()) return sink.take(piece);
    if (step + 1 == parts_.size()) return parts_[step]->split(piece, sink);
    Onward onward(*this, step + 1, sink);
    parts_[step]->split(piece, onward);
  }

  std::vector<std::unique_ptr<const PreTokenizer>> parts_;
};

template <typename T, typename... Args>
Loaded make(Args&&... args) {
  return std::unique_ptr<const PreTokenizer>(std::make_unique<const T>(std::forward<Args>(args)...));
}

Result<Behavior> read_behavior(const Json& config) {
  if (find_field(config, "behavior") == nullptr) return Behavior::isolated;
  CHORUS_TRY(const std::string name, read_string(config, "behavior"));
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  return fail(ErrorCode::invalid_argument, "behavior \"{}\" is not known", name);
}

Loaded load_split(const Json& config) {
  CHORUS_TRY(Pattern pattern, Pattern::load(config));
  CHORUS_TRY(const Behavior behavior, read_behavior(config));
  CHORUS_TRY(const bool invert, read_bool(config, "invert", false));
  const SplitScanner scanner = find_split_scanner(pattern.regex_source());
  if (scanner != nullptr && behavior == Behavior::isolated) return make<ScannedSplit>(scanner);
  return make<Split>(std::move(pattern), behavior, invert);
}

Loaded load_metaspace(const Json& config) {
  std::string replacement = "\xE2\x96\x81";
  if (find_field(config, "replacement") != nullptr) {
    CHORUS_TRY(replacement, read_string(config, "replacement"));
    if (replacement.empty() || character_at(replacement, 0).size != replacement.size()) {
      return fail(ErrorCode::invalid_argument, "replacement: must be one character");
    }
  }
  CHORUS_TRY(const bool split, read_bool(config, "split", true));
  CHORUS_TRY(const bool add_prefix_space, read_bool(config, "add_prefix_space", true));
  using Scheme = Metaspace::PrependScheme;
  Scheme scheme = add_prefix_space ? Scheme::always : Scheme::never;
  if (find_field(config, "prepend_scheme") != nullptr) {
    CHORUS_TRY(const std::string name, read_string(config, "prepend_scheme"));
    if (name != "first" && name != "always" && name != "never") {
      return fail(ErrorCode::invalid_argument, "prepend_scheme \"{}\" is not known", name);
    }
    scheme = name == "first" ? Scheme::first : name == "always" ? Scheme::always : Scheme::never;
  }
  return make<Metaspace>(std::move(replacement), scheme, split);
}

Loaded load_byte_level(const Json& config, const PreTokenizerOptions& options) {
  CHORUS_TRY(const bool add_prefix_space, read_bool(config, "add_prefix_space", true));
  CHORUS_TRY(const bool use_regex, read_bool(config, "use_regex", true));
  return make<ByteLevel>(add_prefix_space, use_regex, options.raw_bytes);
}

Loaded load_pair(Loaded first, Loaded second) {
  if (!first) return first;
  if (!second) return second;
  std::vector<std::unique_ptr<const PreTokenizer>> parts;
  parts.push_back(std::move(first).value());
  parts.push_back(std::move(second).value());
  return make<SequencePreTokenizer>(std::move(parts));
}

Loaded load(const Json& config, const PreTokenizerOptions& options, LoadState& state, int nesting);

Loaded load_sequence(const Json& config, const PreTokenizerOptions& options, LoadState& state, int nesting) {
  CHORUS_TRY(const Json* const list, read_array(config, "pretokenizers"));
  std::vector<std::unique_ptr<const PreTokenizer>> parts;
  for (const Json& entry : *list) {
    const bool last = &entry == &list->back();
    CHORUS_TRY(auto part, load(entry, last ? options : PreTokenizerOptions{}, state, nesting + 1));
    if (part != nullptr) parts.push_back(std::move(part));
  }
  return make<SequencePreTokenizer>(std::move(parts));
}

Loaded load_digits(const Json& config) {
  CHORUS_TRY(const bool individual, read_bool(config, "individual_digits", false));
  return make<Split>(Pattern::from_rule(is_number), individual ? Behavior::isolated : Behavior::contiguous, false);
}

Loaded load_words() {
  CHORUS_TRY(Pattern words, Pattern::from_regex(R"(\w+|[^\w\s]+)"));
  return make<Split>(std::move(words), Behavior::removed, true);
}

Loaded load(const Json& config, const PreTokenizerOptions& options, LoadState& state, int nesting) {
  if (config.is_null()) return std::unique_ptr<const PreTokenizer>();
  CHORUS_TRY_VOID(state.steps.take(nesting));
  CHORUS_TRY(const std::string type, read_string(config, "type"));
  if (type == "ByteLevel" || type == "Metaspace") CHORUS_TRY_VOID(state.rewrite());
  const auto at_rule = [](Pattern::CharacterRule rule, Behavior behavior) {
    return make<Split>(Pattern::from_rule(rule), behavior, false);
  };
  if (type == "Sequence") return load_sequence(config, options, state, nesting);
  if (type == "ByteLevel") return load_byte_level(config, options);
  if (type == "Split") return load_split(config);
  if (type == "Metaspace") return load_metaspace(config);
  if (type == "Digits") return load_digits(config);
  if (type == "Whitespace") return load_words();
  if (type == "WhitespaceSplit") return at_rule(is_white_space, Behavior::removed);
  if (type == "BertPreTokenizer") {
    return load_pair(at_rule(is_white_space, Behavior::removed), at_rule(is_punctuation, Behavior::isolated));
  }
  if (type == "Punctuation") {
    CHORUS_TRY(const Behavior behavior, read_behavior(config));
    return at_rule(is_punctuation, behavior);
  }
  if (type == "CharDelimiterSplit") {
    CHORUS_TRY(std::string delimiter, read_string(config, "delimiter"));
    return make<Split>(Pattern::from_text(std::move(delimiter)), Behavior::removed, false);
  }
  return fail(ErrorCode::invalid_argument, "type \"{}\" is not supported", type);
}

}  // namespace

bool ends_in_byte_level(const Json& config) {
  const Json* step = &config;
  for (int nesting = 0; nesting <= PipelineSteps::nesting_max; ++nesting) {
    const Json* const type = find_field(*step, "type");
    if (type == nullptr) return false;
    if (*type == "ByteLevel") return true;
    const Json* const list = find_field(*step, "pretokenizers");
    if (*type != "Sequence" || list == nullptr || !list->is_array() || list->empty()) return false;
    step = &list->back();
  }
  return false;
}

Result<std::unique_ptr<const PreTokenizer>> load_pre_tokenizer(const Json& config, const PreTokenizerOptions& options) {
  LoadState state;
  return load(config, options, state, 0);
}

}  // namespace chorus
