// A streamed answer, of a chat or of a completion, out of its events. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "client/sse_reader.h"

namespace chorus {

struct TokenUsage {
  std::uint64_t prompt_tokens = 0, completion_tokens = 0;
};

// What one event says. The views are good until the callback returns.
struct AnswerPiece {
  bool has_choice = false;          // else it is the usage alone
  std::string_view text;            // of the first choice: whole characters of UTF-8
  std::string_view reasoning;       // its thoughts, where the server tells them apart
  std::optional<TokenUsage> usage;  // of the whole request, where the server tells it
};

class AnswerStream {
 public:
  explicit AnswerStream(std::function<void(const AnswerPiece&)> on_piece) : on_piece_(std::move(on_piece)) {}
  // unavailable: the server told of an error; invalid_argument: what came is no answer's event.
  Result<void> feed(std::string_view bytes);
  // After the last byte. unavailable: the stream did not end in order.
  Result<void> finish() const;

 private:
  Result<void> take(std::string_view data);

  std::function<void(const AnswerPiece&)> on_piece_;
  SseReader events_;
  bool done_ = false;
};

}  // namespace chorus
