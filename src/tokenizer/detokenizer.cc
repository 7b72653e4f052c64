#include <algorithm>

#include "tokenizer/tokenizer.h"

namespace chorus {
namespace {

struct StopMatch {
  std::size_t begin, end;
  std::size_t index;  // which stop string
};

// The match that ends first, but behind `checked`; of those that end together the longest.
std::optional<StopMatch> find_stop(std::string_view text, const std::vector<std::string>& stops, std::size_t checked) {
  std::optional<StopMatch> best;
  for (std::size_t index = 0; index < stops.size(); ++index) {
    const std::string& stop = stops[index];
    if (stop.empty()) continue;
    const std::size_t from = checked + 1 > stop.size() ? checked + 1 - stop.size() : 0;
    const std::size_t begin = text.find(stop, from);
    if (begin == std::string_view::npos) continue;
    const StopMatch match{begin, begin + stop.size(), index};
    const bool better = !best || match.end < best->end || (match.end == best->end && match.begin < best->begin);
    if (better) best = match;
  }
  return best;
}

// How many bytes at the end of `text` may be the beginning of a stop string.
std::size_t possible_stop_size(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t longest = 0;
  for (const std::string& stop : stops) {
    if (stop.empty()) continue;
    for (std::size_t size = std::min(stop.size() - 1, text.size()); size > longest; --size) {
      if (std::string_view(stop).starts_with(text.substr(text.size() - size))) {
        longest = size;
        break;
      }
    }
  }
  return longest;
}

}  // namespace

struct Detokenizer::State {
  // First what each token needs: of many outputs at once it is in no cache.
  std::unique_ptr<TokenStream> stream;
  bool stopped = false;
  bool finished = false;
  bool looks_for_stops = false;
  std::string held;  // settled, but not handed out: it may be the beginning of a stop string
  std::uint64_t tokens = 0;
  std::size_t checked = 0;  // up to here, in held + tentative text, no stop string may end any more
  Options options;
  std::string stop_string;
  std::shared_ptr<const Tokenizer> tokenizer;

  // Hands out what no stop string can begin in any more.
  std::string release() {
    const std::size_t size = held.size() - possible_stop_size(held, options.stop);
    std::string text = held.substr(0, size);
    held.erase(0, size);
    checked = checked > size ? checked - size : 0;
    return text;
  }

  // Ends the text at a stop string in `text`, if there is one.
  std::optional<std::string> stop_in(std::string_view text) {
    const auto match = find_stop(text, options.stop, checked);
    if (!match) return std::nullopt;
    stopped = true;
    stop_string = options.stop[match->index];
    return std::string(text.substr(0, options.include_stop_in_output ? match->end : match->begin));
  }
};

Detokenizer::Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::int32_t> prompt,
                         Options options)
    : state_(std::make_shared<State>()) {
  state_->stream = tokenizer->start_decoding(options.skip_special_tokens);
  state_->tokenizer = std::move(tokenizer);
  state_->looks_for_stops = !options.stop.empty();
  state_->options = std::move(options);
  state_->stream->begin_after(prompt);
}

std::string Detokenizer::push(std::int32_t token) {
  State& state = *state_;
  if (state.stopped || state.finished) return "";
  ++state.tokens;
  state.stream->push(token, state.held);
  if (!state.looks_for_stops) return std::exchange(state.held, {});
  std::string text = state.held;
  text += state.stream->tentative();
  if (state.tokens > state.options.min_tokens) {
    if (auto end = state.stop_in(text)) return *end;
  }
  state.checked = text.size();
  return state.release();
}

std::string Detokenizer::finish() {
  State& state = *state_;
  if (state.stopped || state.finished) return "";
  state.finished = true;
  state.stream->finish(state.held);
  if (state.tokens > state.options.min_tokens) {
    if (auto end = state.stop_in(state.held)) return *end;
  }
  return std::exchange(state.held, {});
}

bool Detokenizer::stopped() const {
  return state_->stopped;
}

const std::string& Detokenizer::stop_string() const {
  return state_->stop_string;
}

}  // namespace chorus
