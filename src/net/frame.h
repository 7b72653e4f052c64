// A frame: the unit that travels between two processes of one fleet. On the wire, little-endian:
//   u32 length of the payload | u8 type, top bit: a descriptor comes along | u32 epoch of the replica's incarnation |
//   payload
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

inline constexpr std::size_t frame_header_bytes = 9;
inline constexpr std::size_t frame_payload_bytes_max = std::size_t{64} << 20;
inline constexpr std::uint8_t frame_type_max = 0x7F;

struct Frame {
  std::uint8_t type = 0;  // at most frame_type_max; what it means is the caller's business
  std::uint32_t epoch = 0;
  std::string payload;
  UniqueFd descriptor;  // with SCM_RIGHTS
};

std::string encode_frame_header(std::uint8_t type, std::uint32_t epoch, std::size_t payload_bytes, bool has_descriptor);

// Cuts a stream of bytes into frames. Pure. Keeps no more than one frame's declared length plus what was fed.
class FrameParser {
 public:
  explicit FrameParser(std::size_t payload_bytes_max = frame_payload_bytes_max)
      : payload_bytes_max_(payload_bytes_max) {}

  void feed(std::string_view bytes) { buffer_.append(bytes); }
  struct Parsed {
    Frame frame;  // `descriptor` is for the caller to fill in
    bool has_descriptor = false;
  };
  // The next whole frame, or nullopt: feed more. An error (a payload over the limit) is final.
  Result<std::optional<Parsed>> next();
  // Bytes of a frame that has begun and is not whole.
  std::size_t pending_bytes() const { return buffer_.size() - offset_; }

 private:
  std::size_t payload_bytes_max_;
  std::string buffer_;
  std::size_t offset_ = 0;  // start of the first unread frame in buffer_
};

}  // namespace chorus
