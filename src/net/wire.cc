#include "net/wire.h"

#include <limits>

#include "base/check.h"

namespace chorus {

void WireWriter::count(std::size_t elements) {
  CHECK(elements <= std::numeric_limits<std::uint32_t>::max(), "a list of {} elements", elements);
  u32(static_cast<std::uint32_t>(elements));
}

std::string WireReader::text() {
  const std::size_t size = count(1);
  std::string value(bytes_.substr(offset_, size));
  offset_ += size;
  return value;
}

std::uint8_t WireReader::u8_at_most(std::uint8_t limit, const char* what) {
  const std::uint8_t value = u8();
  if (value <= limit) return value;
  refuse(fmt::format("{} is {}, at most {} is known", what, value, limit));
  return 0;
}

std::size_t WireReader::count(std::size_t element_bytes_min) {
  const std::size_t elements = u32();
  const std::size_t left = bytes_.size() - offset_;
  if (elements <= left / element_bytes_min) return elements;
  refuse(fmt::format("a list of {} elements does not fit in the {} bytes left", elements, left));
  return 0;
}

void WireReader::refuse(std::string reason) {
  if (failed_) return;
  failed_ = true;
  reason_ = fmt::format("malformed message at byte {} of {}: {}", offset_, bytes_.size(), reason);
  offset_ = bytes_.size();
}

Result<void> WireReader::finish() const {
  if (failed_) return fail(ErrorCode::invalid_argument, "{}", reason_);
  if (offset_ != bytes_.size()) {
    return fail(ErrorCode::invalid_argument, "malformed message: {} bytes left over after byte {}",
                bytes_.size() - offset_, offset_);
  }
  return {};
}

bool WireReader::has(std::size_t bytes) {
  if (bytes <= bytes_.size() - offset_) return true;
  refuse(fmt::format("{} bytes wanted, {} left", bytes, bytes_.size() - offset_));
  return false;
}

}  // namespace chorus
