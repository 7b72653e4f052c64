#include "server/http/transport.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>

namespace chorus {
namespace {

TransportResult failed() {
  const bool may_work_later = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
  return {may_work_later ? TransportResult::Kind::would_wait : TransportResult::Kind::broken};
}

// What an operation on `tls` came to.
TransportResult result_of(const SSL* tls, int outcome, std::size_t bytes, int crosswise) {
  if (outcome == 1) return {TransportResult::Kind::moved, bytes};
  const int error = SSL_get_error(tls, outcome);
  if (error == SSL_ERROR_ZERO_RETURN) return {TransportResult::Kind::ended};
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return {TransportResult::Kind::broken};
  return {TransportResult::Kind::would_wait, 0, error == crosswise};
}

}  // namespace

TransportResult HttpTransport::read(std::span<char> into) {
  if (tls_ != nullptr) {
    std::size_t bytes = 0;
    ERR_clear_error();  // SSL_get_error() looks at what earlier connections have left
    const int outcome = SSL_read_ex(tls_.get(), into.data(), into.size(), &bytes);
    return result_of(tls_.get(), outcome, bytes, SSL_ERROR_WANT_WRITE);
  }
  const ssize_t bytes = ::recv(socket_.get(), into.data(), into.size(), 0);
  if (bytes < 0) return failed();
  if (bytes == 0) return {TransportResult::Kind::ended};
  return {TransportResult::Kind::moved, static_cast<std::size_t>(bytes)};
}

TransportResult HttpTransport::write(std::string_view bytes) {
  if (tls_ != nullptr) {
    std::size_t sent = 0;
    ERR_clear_error();
    const int outcome = SSL_write_ex(tls_.get(), bytes.data(), bytes.size(), &sent);
    return result_of(tls_.get(), outcome, sent, SSL_ERROR_WANT_READ);
  }
  const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (sent < 0) return failed();
  return {TransportResult::Kind::moved, static_cast<std::size_t>(sent)};
}

void HttpTransport::end_writing() {
  if (tls_ != nullptr && SSL_is_init_finished(tls_.get()) == 1) SSL_shutdown(tls_.get());
  (void)::shutdown(socket_.get(), SHUT_WR);  // a peer that is gone needs to learn nothing
}

}  // namespace chorus
