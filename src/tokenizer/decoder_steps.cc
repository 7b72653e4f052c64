#include "tokenizer/decoder_steps.h"

#include <algorithm>
#include <charconv>

#include "json/utf8.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

using Steps = std::vector<std::unique_ptr<const DecoderStep>>;
constexpr std::int64_t strip_max = 1 << 20;

class ByteLevelStep : public DecoderStep {
 public:
  Kind kind() const override { return Kind::byte_level; }
  void run(std::vector<std::string>& tokens, std::size_t) const override {
    std::string bytes, text;
    for (const std::string& token : tokens) append_byte_level(token, bytes);
    move_utf8(bytes, text, true);
    tokens = {std::move(text)};
  }
};

class ByteFallbackStep : public DecoderStep {
 public:
  Kind kind() const override { return Kind::byte_fallback; }
  void run(std::vector<std::string>& tokens, std::size_t) const override {
    std::vector<std::string> out;
    std::string run;
    const auto close = [&] {
      if (run.empty()) return;
      if (!find_invalid_utf8(run)) {
        out.push_back(run);
      } else {
        out.insert(out.end(), run.size(), std::string(replacement_text));
      }
      run.clear();
    };
    for (std::string& token : tokens) {
      if (const auto byte = byte_of_token(token)) {
        run += static_cast<char>(*byte);
        continue;
      }
      close();
      out.push_back(std::move(token));
    }
    close();
    tokens = std::move(out);
  }
};

class FuseStep : public DecoderStep {
 public:
  Kind kind() const override { return Kind::fuse; }
  void run(std::vector<std::string>& tokens, std::size_t) const override {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens = {std::move(all)};
  }
};

class PerTokenStep : public DecoderStep {
 public:
  Kind kind() const override { return Kind::per_token; }
  void run(std::vector<std::string>& tokens, std::size_t bytes_max) const override {
    std::size_t bytes = 0;
    for (const std::string& token : tokens) bytes += token.size();
    bool first = true;
    for (std::string& token : tokens) {
      bytes -= token.size();
      run_token(token, first, bytes_max > bytes ? bytes_max - bytes : 0);
      bytes += token.size();
      first = false;
    }
  }
};

class StripStep : public PerTokenStep {
 public:
  explicit StripStep(StripRule rule) : rule_(std::move(rule)) {}
  Kind kind() const override { return Kind::strip; }
  const StripRule& rule() const { return rule_; }
  void run_token(std::string& token, bool, std::size_t) const override {
    std::string_view text = token;
    for (std::size_t n = 0; n < rule_.start && text.starts_with(rule_.content); ++n) {
      text.remove_prefix(rule_.content.size());
    }
    for (std::size_t n = 0; n < rule_.stop && text.ends_with(rule_.content); ++n) {
      text.remove_suffix(rule_.content.size());
    }
    token = std::string(text);
  }

 private:
  StripRule rule_;
};

class ReplaceStep : public PerTokenStep {
 public:
  ReplaceStep(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void run_token(std::string& token, bool, std::size_t bytes_max) const override {
    auto replaced = replace_all(token, pattern_, content_, std::max(token.size(), bytes_max));
    if (replaced) token = std::move(replaced).value();  // what runs out of its limits changes nothing
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class MetaspaceStep : public PerTokenStep {
 public:
  MetaspaceStep(std::string replacement, bool drop_first)
      : pattern_(Pattern::from_text(std::move(replacement))), drop_first_(drop_first) {}
  void run_token(std::string& token, bool first, std::size_t) const override {
    auto replaced = replace_all(token, pattern_, first && drop_first_ ? "" : " ", token.size());
    token = std::move(replaced).value();  // the mark is no shorter
  }

 private:
  Pattern pattern_;
  bool drop_first_;
};

// The mark of a word's end becomes a space, but not behind the last token.
class BpeStep : public DecoderStep {
 public:
  explicit BpeStep(std::string suffix) : suffix_(Pattern::from_text(std::move(suffix))) {}
  Kind kind() const override { return Kind::other; }
  void run(std::vector<std::string>& tokens, std::size_t) const override {
    for (std::string& token : tokens) {
      auto replaced = replace_all(token, suffix_, &token == &tokens.back() ? "" : " ", token.size());
      token = std::move(replaced).value();  // the mark is no shorter
    }
  }

 private:
  Pattern suffix_;
};

class JoinStep : public DecoderStep {
 public:
  Kind kind() const override { return Kind::other; }
  void run(std::vector<std::string>& tokens, std::size_t) const override {
    for (std::size_t n = 1; n < tokens.size(); ++n) tokens[n].insert(tokens[n].begin(), ' ');
  }
};

Result<void> load(const Json& config, Steps& steps, PipelineSteps& count, int nesting);

Result<void> load_sequence(const Json& config, Steps& steps, PipelineSteps& count, int nesting) {
  CHORUS_TRY(const Json* const list, read_array(config, "decoders"));
  for (const Json& entry : *list) CHORUS_TRY_VOID(load(entry, steps, count, nesting + 1));
  return {};
}

Result<void> load_strip(const Json& config, Steps& steps) {
  StripRule rule;
  CHORUS_TRY(rule.content, read_string(config, "content"));
  if (rule.content.empty() || character_at(rule.content, 0).size != rule.content.size()) {
    return fail(ErrorCode::invalid_argument, "content: must be one character");
  }
  CHORUS_TRY(const std::int64_t start, read_whole_number(config, "start", 0, strip_max));
  CHORUS_TRY(const std::int64_t stop, read_whole_number(config, "stop", 0, strip_max));
  rule.start = static_cast<std::size_t>(start);
  rule.stop = static_cast<std::size_t>(stop);
  steps.push_back(std::make_unique<StripStep>(std::move(rule)));
  return {};
}

Result<void> load_metaspace(const Json& config, Steps& steps) {
  CHORUS_TRY(std::string replacement, read_string(config, "replacement"));
  CHORUS_TRY(const bool add_prefix_space, read_bool(config, "add_prefix_space", true));
  const Json* const scheme = find_field(config, "prepend_scheme");
  const bool never = scheme != nullptr ? *scheme == "never" : !add_prefix_space;
  steps.push_back(std::make_unique<MetaspaceStep>(std::move(replacement), !never));
  return {};
}

Result<void> load(const Json& config, Steps& steps, PipelineSteps& count, int nesting) {
  CHORUS_TRY_VOID(count.take(nesting));
  CHORUS_TRY(const std::string type, read_string(config, "type"));
  if (type == "Sequence") return load_sequence(config, steps, count, nesting);
  if (type == "Strip") return load_strip(config, steps);
  if (type == "Metaspace") return load_metaspace(config, steps);
  if (type == "ByteLevel") {
    steps.push_back(std::make_unique<ByteLevelStep>());
  } else if (type == "ByteFallback") {
    steps.push_back(std::make_unique<ByteFallbackStep>());
  } else if (type == "Fuse") {
    steps.push_back(std::make_unique<FuseStep>());
  } else if (type == "Replace") {
    CHORUS_TRY(Pattern pattern, Pattern::load(config));
    CHORUS_TRY(std::string content, read_string(config, "content"));
    steps.push_back(std::make_unique<ReplaceStep>(std::move(pattern), std::move(content)));
  } else if (type == "BPEDecoder") {
    CHORUS_TRY(std::string suffix, read_string(config, "suffix"));
    steps.push_back(std::make_unique<BpeStep>(std::move(suffix)));
  } else {
    return fail(ErrorCode::invalid_argument, "type \"{}\" is not supported", type);
  }
  return {};
}

}  // namespace

const StripRule* strip_rule_of(const DecoderStep& step) {
  return step.kind() == DecoderStep::Kind::strip ? &static_cast<const StripStep&>(step).rule() : nullptr;
}

std::optional<unsigned char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned byte = 0;
  // Rust's from_str_radix, which the reference uses, takes a leading "+" too.
  const char* const begin = token.data() + (token[3] == '+' ? 4 : 3);
  const auto [end, code] = std::from_chars(begin, token.data() + 5, byte, 16);
  if (code != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<unsigned char>(byte);
}

void append_byte_level(std::string_view token, std::string& bytes) {
  const std::size_t before = bytes.size();
  for (std::size_t at = 0; at < token.size();) {
    const Character character = character_at(token, at);
    const auto byte = byte_of_character(character.code_point);
    if (!byte) {
      bytes.resize(before);
      bytes += token;
      return;
    }
    bytes += static_cast<char>(*byte);
    at += character.size;
  }
}

void move_utf8(std::string& bytes, std::string& text, bool all) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = utf8_step(bytes, at);
    if (step.cut_off && !all) break;
    text += step.valid ? std::string_view(bytes).substr(at, step.size) : replacement_text;
    at += step.size;
  }
  bytes.erase(0, at);
}

Result<Steps> load_decoder_steps(const Json& config) {
  Steps steps;
  if (config.is_null()) {
    steps.push_back(std::make_unique<JoinStep>());
  } else {
    PipelineSteps count;
    CHORUS_TRY_VOID(load(config, steps, count, 0));
  }
  return steps;
}

}  // namespace chorus
