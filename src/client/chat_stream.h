// The text of a streamed chat completion, out of its events. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "client/sse_reader.h"

namespace chorus {

class ChatStream {
 public:
  // `on_text` gets each piece of the answer, whole characters of UTF-8.
  explicit ChatStream(std::function<void(std::string_view)> on_text) : on_text_(std::move(on_text)) {}
  // unavailable: the server told of an error; invalid_argument: what came is no chat completion.
  Result<void> feed(std::string_view bytes);
  // After the last byte. unavailable: the stream did not end in order.
  Result<void> finish() const;

 private:
  Result<void> take(std::string_view data);

  std::function<void(std::string_view)> on_text_;
  SseReader events_;
  bool done_ = false;
};

// What an answer that is no success says: OpenAI's error object, or else the beginning of its text.
std::string error_text(std::string_view body);

// Control characters but newline and tab (C0, DEL, C1) are spelt, so that no text moves a terminal's cursor or sets
// its title.
std::string terminal_text(std::string_view text);

}  // namespace chorus
