#include "net/frame.h"

#include "base/check.h"
#include "net/wire.h"

namespace chorus {
namespace {

constexpr std::uint8_t descriptor_bit = 0x80;

}  // namespace

std::string encode_frame_header(std::uint8_t type, std::uint32_t epoch, std::size_t payload_bytes,
                                bool has_descriptor) {
  CHECK(type <= frame_type_max, "frame type {}", type);
  CHECK(payload_bytes <= 0xFFFFFFFFU, "payload of {} bytes", payload_bytes);
  WireWriter writer;
  writer.u32(static_cast<std::uint32_t>(payload_bytes));
  writer.u8(static_cast<std::uint8_t>(has_descriptor ? type | descriptor_bit : type));
  writer.u32(epoch);
  return writer.take();
}

Result<std::optional<FrameParser::Parsed>> FrameParser::next() {
  const std::string_view unread = std::string_view(buffer_).substr(offset_);
  if (unread.size() < frame_header_bytes) return std::optional<Parsed>();
  WireReader header(unread.substr(0, frame_header_bytes));
  const std::size_t payload_bytes = header.u32();
  const std::uint8_t type = header.u8();
  const std::uint32_t epoch = header.u32();
  if (payload_bytes > payload_bytes_max_) {
    return fail(ErrorCode::invalid_argument,
                "frame of type {} with {} bytes: the limit is {}; the peer does not speak this protocol",
                type & frame_type_max, payload_bytes, payload_bytes_max_);
  }
  if (unread.size() < frame_header_bytes + payload_bytes) return std::optional<Parsed>();
  Parsed parsed;
  parsed.frame.type = type & frame_type_max;
  parsed.frame.epoch = epoch;
  parsed.frame.payload = unread.substr(frame_header_bytes, payload_bytes);
  parsed.has_descriptor = (type & descriptor_bit) != 0;
  offset_ += frame_header_bytes + payload_bytes;
  // Moving the rest down once half the buffer is read costs each byte at most one move.
  if (offset_ >= buffer_.size() / 2) {
    buffer_.erase(0, offset_);
    offset_ = 0;
  }
  return std::optional<Parsed>(std::move(parsed));
}

}  // namespace chorus
