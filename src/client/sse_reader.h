// Server-sent events (WHATWG HTML, 9.2.6), from the pieces in which they come. Of an event only its data is read. Pure.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chorus {

class SseReader {
 public:
  // What an event's lines may hold before they are taken for a mistake.
  static constexpr std::size_t line_bytes_max = 1u << 20;
  static constexpr std::size_t event_bytes_max = 4u << 20;
  using Take = std::function<Result<void>(std::string_view data)>;

  // Calls `take` with the data of each event that these bytes complete; a piece may begin and end anywhere. The first
  // error of `take` ends it. invalid_argument: a line or an event is longer than its limit.
  Result<void> feed(std::string_view bytes, const Take& take);

 private:
  Result<void> end_line(const Take& take);

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_return_ = false;  // the newline of a CR LF is still to come
};

}  // namespace chorus
