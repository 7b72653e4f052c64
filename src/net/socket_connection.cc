#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>

#include "base/clock.h"
#include "net/connection.h"

namespace chorus {
namespace {

// Descriptors that arrived and whose frame is not whole yet. The peer of an engine sends one in its life.
constexpr std::size_t pending_descriptors_max = 4;
constexpr std::size_t read_bytes = 64U << 10;
constexpr std::size_t parts_max = 64;  // messages of one write

struct Outgoing {
  std::string bytes;
  std::size_t sent = 0;
  UniqueFd descriptor;
};

class SocketConnection final : public Connection {
 public:
  SocketConnection(UniqueFd socket, bool passes_descriptors, const ConnectionLimits& limits)
      : socket_(std::move(socket)),
        passes_descriptors_(passes_descriptors),
        limits_(limits),
        parser_(limits.payload_bytes_max) {}

  Result<void> queue(std::uint8_t type, std::uint32_t epoch, std::string payload, int descriptor) override {
    if (send_error_) return *send_error_;
    if (payload.size() > limits_.payload_bytes_max) {
      return fail(ErrorCode::invalid_argument, "a message of {} bytes is over the limit of {}", payload.size(),
                  limits_.payload_bytes_max);
    }
    if (queued_bytes_ + payload.size() > limits_.send_queue_bytes_max) {
      return fail(ErrorCode::resource_exhausted, "send queue full: {} bytes wait, the limit is {}", queued_bytes_,
                  limits_.send_queue_bytes_max);
    }
    if (descriptor >= 0 && !passes_descriptors_) {
      return fail(ErrorCode::invalid_argument, "a descriptor cannot go to another machine");
    }
    Outgoing outgoing;
    if (descriptor >= 0) {
      outgoing.descriptor.reset(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
      if (!outgoing.descriptor.valid())
        return fail(ErrorCode::internal, "fcntl(F_DUPFD_CLOEXEC): {}", std::strerror(errno));
    }
    outgoing.bytes = encode_frame_header(type, epoch, payload.size(), descriptor >= 0);
    outgoing.bytes += payload;
    queued_bytes_ += outgoing.bytes.size();
    queue_.push_back(std::move(outgoing));
    return {};
  }

  Result<void> flush() override {
    if (send_error_) return *send_error_;
    while (!queue_.empty()) {
      const ssize_t sent = send_some();
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return {};
      if (sent < 0) {
        send_error_ = fail(errno == EPIPE || errno == ECONNRESET ? ErrorCode::unavailable : ErrorCode::internal,
                           "sending to the peer: {}", std::strerror(errno));
        queue_.clear();
        queued_bytes_ = 0;
        return *send_error_;
      }
      took(static_cast<std::size_t>(sent));
    }
    return {};
  }

  std::size_t queued_bytes() const override { return queued_bytes_; }

  Result<std::optional<Frame>> receive() override {
    while (!receive_error_) {
      auto parsed = parser_.next();
      if (!parsed.ok()) {
        receive_error_ = parsed.error();
        break;
      }
      if (parsed->has_value()) return with_descriptor(std::move(**parsed));
      if (!read_some()) return std::optional<Frame>();
    }
    return *receive_error_;
  }

  Result<bool> wait(int timeout_ms) override {
    const Nanoseconds deadline = deadline_after(timeout_ms);
    while (true) {
      pollfd item = poll_item(*this);
      const int count = ::poll(&item, 1, milliseconds_until(deadline));
      if (count >= 0) return count > 0;
      if (errno != EINTR) return fail(ErrorCode::internal, "poll: {}", std::strerror(errno));
    }
  }

  int fd() const override { return socket_.get(); }

 private:
  // The first messages of the queue; one with a descriptor is the first of its call.
  ssize_t send_some() {
    std::array<iovec, parts_max> parts;
    std::size_t count = 0;
    for (const Outgoing& outgoing : queue_) {
      if (count == parts.size() || (count > 0 && outgoing.descriptor.valid())) break;
      parts[count++] = {const_cast<char*>(outgoing.bytes.data()) + outgoing.sent,
                        outgoing.bytes.size() - outgoing.sent};
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    if (const Outgoing& outgoing = queue_.front(); outgoing.descriptor.valid()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = outgoing.descriptor.get();
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    return ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  void took(std::size_t bytes) {
    queued_bytes_ -= bytes;
    queue_.front().descriptor.reset();  // it went with the first byte
    while (bytes > 0) {
      Outgoing& front = queue_.front();
      const std::size_t of_front = std::min(bytes, front.bytes.size() - front.sent);
      front.sent += of_front;
      bytes -= of_front;
      if (front.sent == front.bytes.size()) queue_.pop_front();
    }
  }

  // Reads once. False: nothing there now. Sets receive_error_ when the peer is gone.
  bool read_some() {
    std::array<char, read_bytes> bytes;
    iovec part{bytes.data(), bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * pending_descriptors_max)> control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count < 0 && errno == EINTR) return true;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (count < 0) {
      receive_error_ = fail(errno == ECONNRESET ? ErrorCode::unavailable : ErrorCode::internal,
                            "receiving from the peer: {}", std::strerror(errno));
      return true;
    }
    take_descriptors(&message);
    if (count == 0) {
      receive_error_ = parser_.pending_bytes() == 0
                           ? fail(ErrorCode::unavailable, "the peer closed the connection")
                           : fail(ErrorCode::unavailable,
                                  "the peer closed the connection in the middle of a message ({} bytes of it came)",
                                  parser_.pending_bytes());
      return true;
    }
    parser_.feed(std::string_view(bytes.data(), static_cast<std::size_t>(count)));
    return true;
  }

  void take_descriptors(msghdr* message) {
    for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr; header = CMSG_NXTHDR(message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
        descriptors_.emplace_back(fd);
      }
    }
    if (descriptors_.size() > pending_descriptors_max) {
      receive_error_ =
          fail(ErrorCode::invalid_argument, "the peer sent {} descriptors that belong to no message; {} may wait",
               descriptors_.size(), pending_descriptors_max);
      descriptors_.clear();
    }
  }

  Result<std::optional<Frame>> with_descriptor(FrameParser::Parsed parsed) {
    if (parsed.has_descriptor) {
      // The kernel delivers a descriptor no later than the first byte it was sent with.
      if (descriptors_.empty()) {
        receive_error_ = fail(ErrorCode::invalid_argument,
                              "a message of type {} announces a descriptor and brings none (limit on open files?)",
                              parsed.frame.type);
        return *receive_error_;
      }
      parsed.frame.descriptor = std::move(descriptors_.front());
      descriptors_.pop_front();
    }
    return std::optional<Frame>(std::move(parsed.frame));
  }

  UniqueFd socket_;
  bool passes_descriptors_;  // a Unix socket
  ConnectionLimits limits_;
  FrameParser parser_;
  std::deque<UniqueFd> descriptors_;  // arrived, in order
  std::deque<Outgoing> queue_;
  std::size_t queued_bytes_ = 0;
  std::optional<Error> send_error_;
  std::optional<Error> receive_error_;
};

}  // namespace

Result<std::unique_ptr<Connection>> make_socket_connection(UniqueFd socket, const ConnectionLimits& limits) {
  const int status_flags = ::fcntl(socket.get(), F_GETFL);
  if (status_flags < 0 || ::fcntl(socket.get(), F_SETFL, status_flags | O_NONBLOCK) < 0 ||
      ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) < 0) {
    return fail(ErrorCode::internal, "fcntl on socket {}: {}", socket.get(), std::strerror(errno));
  }
  int domain = AF_UNSPEC;
  socklen_t length = sizeof domain;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) {
    return fail(ErrorCode::internal, "getsockopt(SO_DOMAIN) on {}: {}", socket.get(), std::strerror(errno));
  }
  return std::unique_ptr<Connection>(std::make_unique<SocketConnection>(std::move(socket), domain == AF_UNIX, limits));
}

Result<std::pair<UniqueFd, UniqueFd>> make_socket_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
    return fail(ErrorCode::internal, "socketpair: {}", std::strerror(errno));
  }
  return std::make_pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

}  // namespace chorus
