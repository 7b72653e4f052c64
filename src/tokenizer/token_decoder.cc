#include "tokenizer/token_decoder.h"

#include <algorithm>

#include "json/utf8.h"
#include "tokenizer/decoder_steps.h"

namespace chorus {
namespace {

using Kind = DecoderStep::Kind;
using Steps = std::vector<std::unique_ptr<const DecoderStep>>;

// A valid byte run this long is settled although one wrong byte behind it would make the reference show the whole run
// as U+FFFD: otherwise text in a script that the vocabulary lacks would not appear before its end.
constexpr std::size_t byte_run_max = 64;

// ByteLevel alone: bytes in, characters out.
class ByteLevelDecoder : public TokenDecoder {
 public:
  std::unique_ptr<TokenStream> start(const TokenText& tokens, bool skip_special_tokens) const override {
    return std::make_unique<Stream>(tokens, skip_special_tokens);
  }

 private:
  class Stream : public TokenStream {
   public:
    Stream(const TokenText& tokens, bool skip) : tokens_(tokens), skip_special_tokens_(skip) {}
    // A character that is cut off has three bytes at most, and its first byte begins a character wherever decoding
    // began: the last three bytes are enough.
    void begin_after(std::span<const std::int32_t> tokens) override {
      std::size_t first = tokens.size();
      for (std::string end; first > 0 && end.size() < 3;) {
        if (const auto text = tokens_.text_of(tokens[--first], skip_special_tokens_)) append_byte_level(*text, end);
      }
      std::string unwanted;
      for (const std::int32_t token : tokens.subspan(first)) push(token, unwanted);
    }
    void push(std::int32_t token, std::string& settled) override {
      const auto text = tokens_.text_of(token, skip_special_tokens_);
      if (!text) return;
      append_byte_level(*text, bytes_);
      move_utf8(bytes_, settled, false);
    }
    std::string_view tentative() const override { return {}; }
    void finish(std::string& settled) override { move_utf8(bytes_, settled, true); }

   private:
    const TokenText& tokens_;
    bool skip_special_tokens_;
    std::string bytes_;  // at most three: the beginning of a character
  };
};

// SentencePiece's shape: steps on single tokens, then byte tokens joined to characters, then all joined and the first
// characters of the whole stripped.
class PieceDecoder : public TokenDecoder {
 public:
  struct Plan {
    Steps token_steps;
    bool byte_fallback = false;
    StripRule strip;
  };
  explicit PieceDecoder(Plan plan) : plan_(std::move(plan)) {}
  std::unique_ptr<TokenStream> start(const TokenText& tokens, bool skip_special_tokens) const override {
    return std::make_unique<Stream>(plan_, tokens, skip_special_tokens);
  }

 private:
  class Stream : public TokenStream {
   public:
    Stream(const Plan& plan, const TokenText& tokens, bool skip)
        : plan_(plan), tokens_(tokens), skip_special_tokens_(skip), strip_left_(plan.strip.start) {}

    // From the front until the rules for a beginning have been used up; then from the last token that is no byte, which
    // closes whatever run was before it.
    void begin_after(std::span<const std::int32_t> tokens) override {
      std::string unwanted;
      std::size_t at = 0;
      while (at < tokens.size() && (first_ || strip_left_ > 0)) push(tokens[at++], unwanted);
      std::size_t last = tokens.size();
      while (last > at && !closes_run(tokens[last - 1])) --last;
      for (const std::int32_t token : tokens.subspan(last > at ? last - 1 : at)) push(token, unwanted);
      if (run_is_text()) close_run(unwanted);
    }

    void push(std::int32_t token, std::string& settled) override {
      const auto text = tokens_.text_of(token, skip_special_tokens_);
      if (!text) return;
      const std::string piece = piece_of(*text);
      first_ = false;
      const auto byte = plan_.byte_fallback ? byte_of_token(piece) : std::nullopt;
      if (!byte) {
        close_run(settled);
        add(piece, settled);
        return;
      }
      run_ += static_cast<char>(*byte);
      check_run();
      if (run_.size() >= byte_run_max && run_is_text()) close_run(settled);
    }

    std::string_view tentative() const override { return tentative_; }

    void finish(std::string& settled) override { close_run(settled); }

   private:
    std::string piece_of(std::string_view text) const {
      std::string piece(text);
      const std::size_t bytes_max = decoded_bytes_max(text.size());
      for (const auto& step : plan_.token_steps) step->run_token(piece, first_, bytes_max);
      return piece;
    }

    // Any token that has a text, unless it is one more byte.
    bool closes_run(std::int32_t token) const {
      const auto text = tokens_.text_of(token, skip_special_tokens_);
      return text && !(plan_.byte_fallback && byte_of_token(piece_of(*text)));
    }

    bool run_is_text() const { return !run_broken_ && run_checked_ == run_.size(); }

    void check_run() {
      while (!run_broken_ && run_checked_ < run_.size()) {
        const Utf8Step step = utf8_step(run_, run_checked_);
        if (step.cut_off) break;
        run_broken_ = !step.valid;
        run_checked_ += step.size;
      }
      tentative_.clear();
      if (!run_is_text()) return;
      std::size_t strip_left = strip_left_;
      tentative_ = strip(run_, strip_left);
    }

    void close_run(std::string& settled) {
      if (run_.empty()) return;
      if (run_is_text()) {
        add(run_, settled);
      } else {
        for (std::size_t n = 0; n < run_.size(); ++n) add(replacement_text, settled);
      }
      run_.clear();
      tentative_.clear();
      run_checked_ = 0;
      run_broken_ = false;
    }

    std::string_view strip(std::string_view text, std::size_t& left) const {
      while (left > 0 && !text.empty()) {
        if (!text.starts_with(plan_.strip.content)) {
          left = 0;
          break;
        }
        text.remove_prefix(plan_.strip.content.size());
        --left;
      }
      return text;
    }

    void add(std::string_view text, std::string& settled) { settled += strip(text, strip_left_); }

    const Plan& plan_;
    const TokenText& tokens_;
    bool skip_special_tokens_;
    bool first_ = true;
    std::size_t strip_left_;  // times that `strip.content` may still be taken off the front of the whole
    std::string run_;         // byte tokens not yet closed by another token
    std::size_t run_checked_ = 0;
    bool run_broken_ = false;  // not UTF-8, whatever follows
    std::string tentative_;
  };

  Plan plan_;
};

// Any other chain: decoded anew for each token, which is slow but right. What two decodings in turn agree on is
// settled, but for an open run of byte tokens: one more byte changes all of its characters.
class GeneralDecoder : public TokenDecoder {
 public:
  explicit GeneralDecoder(Steps steps)
      : steps_(std::move(steps)),
        joins_bytes_(
            std::ranges::any_of(steps_, [](const auto& step) { return step->kind() == Kind::byte_fallback; })) {}

  std::unique_ptr<TokenStream> start(const TokenText& tokens, bool skip_special_tokens) const override {
    return std::make_unique<Stream>(*this, tokens, skip_special_tokens);
  }

  std::string decode(const TokenText& tokens, std::span<const std::int32_t> ids,
                     bool skip_special_tokens) const override {
    std::vector<std::string> texts;
    for (const std::int32_t id : ids) {
      if (const auto text = tokens.text_of(id, skip_special_tokens)) texts.emplace_back(*text);
    }
    return run(std::move(texts));
  }

 private:
  std::string run(std::vector<std::string> texts) const {
    std::size_t bytes = 0;
    for (const std::string& text : texts) bytes += text.size();
    for (const auto& step : steps_) step->run(texts, decoded_bytes_max(bytes));
    std::string all;
    for (const std::string& text : texts) all += text;
    return all;
  }

  class Stream : public TokenStream {
   public:
    Stream(const GeneralDecoder& decoder, const TokenText& tokens, bool skip)
        : decoder_(decoder), tokens_(tokens), skip_special_tokens_(skip) {}
    void begin_after(std::span<const std::int32_t> tokens) override {
      for (const std::int32_t token : tokens) {
        if (const auto text = tokens_.text_of(token, skip_special_tokens_)) texts_.emplace_back(*text);
      }
      all_ = decoder_.run(texts_);
      std::string_view whole = all_;  // without a character that may become complete
      while (whole.ends_with(replacement_text)) whole.remove_suffix(replacement_text.size());
      settled_ = whole.size();
    }
    void push(std::int32_t token, std::string& settled) override {
      const auto text = tokens_.text_of(token, skip_special_tokens_);
      if (!text) return;
      texts_.emplace_back(*text);
      std::string all = decoder_.run(texts_);
      const auto [end, unused] = std::mismatch(all.begin(), all.end(), all_.begin(), all_.end());
      auto same = static_cast<std::size_t>(end - all.begin());
      while (same > 0 && same < all.size() && (static_cast<unsigned char>(all[same]) & 0xC0) == 0x80) --same;
      all_ = std::move(all);
      run_ = decoder_.joins_bytes_ && byte_of_token(*text) ? run_ + 1 : 0;
      const bool is_open = run_ > 0 && (run_ < byte_run_max || all_.ends_with(replacement_text));
      if (is_open || same <= settled_) return;
      settled += std::string_view(all_).substr(settled_, same - settled_);
      settled_ = same;
    }
    std::string_view tentative() const override {
      return std::string_view(all_).substr(std::min(settled_, all_.size()));
    }
    void finish(std::string& settled) override {
      settled += tentative();
      settled_ = all_.size();
    }

   private:
    const GeneralDecoder& decoder_;
    const TokenText& tokens_;
    bool skip_special_tokens_;
    std::vector<std::string> texts_;
    std::string all_;
    std::size_t settled_ = 0;
    std::size_t run_ = 0;  // byte tokens at the end
  };

  Steps steps_;
  bool joins_bytes_;
};

// The plan for these steps, or nullopt if they have another shape; then `steps` is unchanged.
std::optional<PieceDecoder::Plan> plan_of(Steps& steps) {
  const auto is_token_step = [](const auto& step) {
    return step->kind() == Kind::per_token || step->kind() == Kind::strip;
  };
  PieceDecoder::Plan plan;
  auto at = std::find_if_not(steps.begin(), steps.end(), is_token_step);
  const auto token_steps_end = at;
  if (at != steps.end() && (*at)->kind() == Kind::byte_fallback) {
    plan.byte_fallback = true;
    ++at;
  }
  if (at != steps.end() && (*at)->kind() == Kind::fuse) {
    ++at;
    const StripRule* const strip = at != steps.end() ? strip_rule_of(**at) : nullptr;
    if (strip != nullptr && strip->stop == 0) {
      plan.strip = *strip;
      ++at;
    }
  }
  if (at != steps.end()) return std::nullopt;
  plan.token_steps.assign(std::make_move_iterator(steps.begin()), std::make_move_iterator(token_steps_end));
  return plan;
}

}  // namespace

std::string TokenDecoder::decode(const TokenText& tokens, std::span<const std::int32_t> ids,
                                 bool skip_special_tokens) const {
  std::string text;
  const auto stream = start(tokens, skip_special_tokens);
  for (const std::int32_t id : ids) stream->push(id, text);
  stream->finish(text);
  return text;
}

Result<std::unique_ptr<const TokenDecoder>> load_token_decoder(const Json& config) {
  using Loaded = std::unique_ptr<const TokenDecoder>;
  CHORUS_TRY(Steps steps, load_decoder_steps(config));
  if (steps.size() == 1 && steps[0]->kind() == Kind::byte_level) return Loaded(std::make_unique<ByteLevelDecoder>());
  if (auto plan = plan_of(steps)) return Loaded(std::make_unique<PieceDecoder>(std::move(*plan)));
  return Loaded(std::make_unique<GeneralDecoder>(std::move(steps)));
}

}  // namespace chorus
