// The bytes of one connection: what TLS will stand behind. Nothing waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "net/unique_fd.h"

namespace chorus {

struct TransportResult {
  enum class Kind : std::uint8_t { moved, would_wait, ended, broken };  // ended: the peer sends no more
  Kind kind = Kind::moved;
  std::size_t bytes = 0;  // moved
};

class HttpTransport {
 public:
  explicit HttpTransport(UniqueFd socket) : socket_(std::move(socket)) {}  // non-blocking

  int fd() const { return socket_.get(); }
  TransportResult read(std::span<char> into);
  TransportResult write(std::string_view bytes);
  void end_writing();  // the peer learns that nothing follows

 private:
  UniqueFd socket_;
};

}  // namespace chorus
