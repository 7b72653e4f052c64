#include "server/http/transport.h"

#include <sys/socket.h>

#include <cerrno>

namespace chorus {
namespace {

TransportResult failed() {
  const bool may_work_later = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
  return {may_work_later ? TransportResult::Kind::would_wait : TransportResult::Kind::broken};
}

}  // namespace

TransportResult HttpTransport::read(std::span<char> into) {
  const ssize_t bytes = ::recv(socket_.get(), into.data(), into.size(), 0);
  if (bytes < 0) return failed();
  if (bytes == 0) return {TransportResult::Kind::ended};
  return {TransportResult::Kind::moved, static_cast<std::size_t>(bytes)};
}

TransportResult HttpTransport::write(std::string_view bytes) {
  const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (sent < 0) return failed();
  return {TransportResult::Kind::moved, static_cast<std::size_t>(sent)};
}

void HttpTransport::end_writing() {
  (void)::shutdown(socket_.get(), SHUT_WR);  // a peer that is gone needs to learn nothing
}

}  // namespace chorus
