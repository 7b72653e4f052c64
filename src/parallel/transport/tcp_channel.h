// One connection between two ranks. Over it go pieces of bytes whose lengths both ends know, so that no length travels.
// Private to this room.
//
// In a cluster with a key each part of a piece, tcp_part_bytes_max long or what is left, is followed by its tag:
// HMAC-SHA256 under the direction's session key over a mark (so that no tag of net's frames can stand for one), the
// part's number on this connection in this direction, its length, and its bytes. Bytes lie in the receiver's memory
// before they are verified; the piece counts as received only after. Without a key nothing is added.
//
// Never waits and allocates nothing once made. Errors are final: unavailable (the connection is gone), invalid_argument
// (a wrong tag).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "net/handshake_socket.h"

namespace chorus {

inline constexpr std::size_t tcp_part_bytes_max = std::size_t{32} << 10;

class TcpChannel {
 public:
  TcpChannel() = default;  // none
  explicit TcpChannel(ProvenSocket proven);
  bool valid() const { return socket_.valid(); }
  int fd() const { return socket_.get(); }

  // One piece at a time in each direction. Its bytes stay where they are until it is done.
  void begin_sending(std::span<const std::byte> piece);
  void begin_receiving(std::span<std::byte> piece);
  bool sending() const { return !out_piece_.empty() || out_.tag_left > 0; }
  bool receiving() const { return !in_piece_.empty() || in_.tag_left > 0; }
  // One call of the system, while sending() or receiving(). False: the socket takes or has no more now.
  Result<bool> send_some();
  Result<bool> receive_some();
  // Whether a byte is there. It is not verified and not taken.
  Result<bool> has_byte() const;

 private:
  // The part in progress of one direction.
  struct Flow {
    std::optional<Hmac> hmac;
    std::uint64_t number = 0;  // of parts before it
    std::size_t part_bytes = 0, part_left = 0;
    std::array<char, tag_bytes> tag{};
    std::size_t tag_left = 0;

    bool between_parts() const { return part_left == 0 && tag_left == 0; }
    void begin_part(std::size_t piece_bytes);
    char* tag_rest() { return tag.data() + (tag.size() - tag_left); }
    std::size_t advance(std::size_t count);  // how many of `count` bytes are the part's, not the tag's
  };

  UniqueFd socket_;
  Flow out_, in_;
  std::span<const std::byte> out_piece_;  // what is left of it
  std::span<std::byte> in_piece_;
};

}  // namespace chorus
