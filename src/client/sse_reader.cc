#include "client/sse_reader.h"

#include <algorithm>
#include <utility>

namespace chorus {

Result<void> SseReader::feed(std::string_view bytes, const Take& take) {
  while (!bytes.empty()) {
    if (std::exchange(after_return_, false) && bytes.front() == '\n') {
      bytes.remove_prefix(1);
      continue;
    }
    const std::size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    if (line_.size() + end > line_bytes_max) {
      return fail(ErrorCode::invalid_argument, "a line of the event stream is longer than {} bytes", line_bytes_max);
    }
    line_ += bytes.substr(0, end);
    if (end == bytes.size()) return {};
    after_return_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    CHORUS_TRY_VOID(end_line(take));
  }
  return {};
}

Result<void> SseReader::end_line(const Take& take) {
  const std::string line = std::exchange(line_, {});
  if (line.empty()) {
    const std::string data = std::exchange(data_, {});
    return std::exchange(has_data_, false) ? take(data) : Result<void>();
  }
  std::string_view value = line;
  if (!value.starts_with("data:")) return {};  // another field, or a comment that keeps the connection alive
  value.remove_prefix(5);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (data_.size() + value.size() > event_bytes_max) {
    return fail(ErrorCode::invalid_argument, "an event is longer than {} bytes", event_bytes_max);
  }
  if (std::exchange(has_data_, true)) data_ += '\n';
  data_ += value;
  return {};
}

}  // namespace chorus
