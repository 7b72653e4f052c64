// The bytes of one connection, in the clear or through TLS. Nothing waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "net/unique_fd.h"
#include "server/http/tls.h"

namespace chorus {

struct TransportResult {
  enum class Kind : std::uint8_t { moved, would_wait, ended, broken };  // ended: the peer sends no more
  Kind kind = Kind::moved;
  std::size_t bytes = 0;  // moved
  // would_wait: for the other direction. A handshake writes while it is read, and the other way round.
  bool waits_crosswise = false;
};

class HttpTransport {
 public:
  // `socket` is non-blocking. `tls`: of that socket; null: in the clear.
  explicit HttpTransport(UniqueFd socket, TlsSession tls = nullptr)
      : socket_(std::move(socket)), tls_(std::move(tls)) {}

  int fd() const { return socket_.get(); }
  TransportResult read(std::span<char> into);
  TransportResult write(std::string_view bytes);
  void end_writing();  // the peer learns that nothing follows

 private:
  UniqueFd socket_;
  TlsSession tls_;  // ends before its socket
};

}  // namespace chorus
