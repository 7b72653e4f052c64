#include "parallel/store/store_stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "net/connector.h"
#include "net/frame_listener.h"
#include "net/tcp.h"
#include "parallel/transport/tcp_socket.h"

namespace chorus {
namespace {

constexpr std::size_t read_bytes = 64 * 1024;
constexpr std::size_t frame_bytes = std::size_t{1} << 20;
constexpr std::size_t handshakes_max = 1024;  // all ranks of a large job come at once
constexpr Nanoseconds accept_again_after = 100'000'000;
constexpr std::uint8_t bytes_frame = 1;  // the only type of frame

// A server bounds what it has queued by queued_bytes().
constexpr ConnectionLimits guarded_limits{.payload_bytes_max = frame_bytes,
                                          .send_queue_bytes_max = 4 * frame_payload_bytes_max};

class BareStream final : public StoreStream {
 public:
  explicit BareStream(UniqueFd socket) : socket_(std::move(socket)) {}

  Result<void> send(std::string_view bytes) override {
    queue_ += bytes;
    return flush();
  }
  Result<void> flush() override {
    while (!queue_.empty()) {
      const ssize_t sent = ::send(socket_.get(), queue_.data(), queue_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return {};
      if (sent < 0) return fail(ErrorCode::unavailable, "sending: {}", std::strerror(errno));
      queue_.erase(0, static_cast<std::size_t>(sent));
    }
    return {};
  }
  std::size_t queued_bytes() const override { return queue_.size(); }
  Result<bool> receive(std::string* bytes) override {
    char read[read_bytes];
    const ssize_t count = ::recv(socket_.get(), read, sizeof read, MSG_DONTWAIT);
    if (count == 0) return fail(ErrorCode::unavailable, "closed by the peer");
    if (count > 0) {
      bytes->append(read, static_cast<std::size_t>(count));
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      return fail(ErrorCode::unavailable, "receiving: {}", std::strerror(errno));
    }
    return false;
  }
  int fd() const override { return socket_.get(); }

 private:
  UniqueFd socket_;
  std::string queue_;
};

class GuardedStream final : public StoreStream {
 public:
  explicit GuardedStream(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}

  Result<void> send(std::string_view bytes) override {
    for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), frame_bytes))) {
      CHORUS_TRY_VOID(connection_->send(bytes_frame, 0, std::string(bytes.substr(0, frame_bytes))));
    }
    return {};
  }
  Result<void> flush() override { return connection_->flush(); }
  std::size_t queued_bytes() const override { return connection_->queued_bytes(); }
  Result<bool> receive(std::string* bytes) override {
    CHORUS_TRY(const std::optional<Frame> frame, connection_->receive());
    if (frame) *bytes += frame->payload;
    return frame.has_value();
  }
  int fd() const override { return connection_->fd(); }

 private:
  std::unique_ptr<Connection> connection_;
};

class BareDoor final : public StoreDoor {
 public:
  BareDoor(UniqueFd listener, int port) : listener_(std::move(listener)), port_(port) {}

  int port() const override { return port_; }
  void append_descriptors(std::vector<pollfd>* items) const override {
    items->push_back({paused_until_ > 0 ? -1 : listener_.get(), POLLIN, 0});
  }
  std::optional<Nanoseconds> next_deadline() const override {
    return paused_until_ > 0 ? std::optional(paused_until_) : std::nullopt;
  }
  std::vector<std::unique_ptr<StoreStream>> accept(Nanoseconds now) override {
    std::vector<std::unique_ptr<StoreStream>> accepted;
    if (now < paused_until_) return accepted;
    paused_until_ = 0;
    auto socket = tcp::accept(listener_.get());
    if (!socket.ok()) {
      log(LogLevel::warning, "store on port {}: {}", port_, socket.error().message);
      paused_until_ = now + accept_again_after;  // not at once: the reason is still there
    } else if (socket->valid()) {
      accepted.push_back(make_bare_stream(std::move(*socket)));
    }
    return accepted;
  }

 private:
  UniqueFd listener_;
  int port_;
  Nanoseconds paused_until_ = 0;  // no descriptors are left for new ones
};

class GuardedDoor final : public StoreDoor {
 public:
  explicit GuardedDoor(FrameListener listener) : listener_(std::move(listener)) {}

  int port() const override { return listener_.address().port(); }
  void append_descriptors(std::vector<pollfd>* items) const override { listener_.append_descriptors(items); }
  std::optional<Nanoseconds> next_deadline() const override { return listener_.next_deadline(); }
  std::vector<std::unique_ptr<StoreStream>> accept(Nanoseconds now) override {
    std::vector<std::unique_ptr<StoreStream>> accepted;
    for (auto& caller : listener_.accept(now)) accepted.push_back(make_guarded_stream(std::move(caller.connection)));
    return accepted;
  }

 private:
  FrameListener listener_;
};

}  // namespace

std::unique_ptr<StoreStream> make_bare_stream(UniqueFd socket) {
  return std::make_unique<BareStream>(std::move(socket));
}

std::unique_ptr<StoreStream> make_guarded_stream(std::unique_ptr<Connection> connection) {
  return std::make_unique<GuardedStream>(std::move(connection));
}

Result<std::unique_ptr<StoreDoor>> open_store_door(const std::string& address, int port,
                                                   std::shared_ptr<const ClusterKey> key) {
  if (key) {
    ListenOptions options;
    options.address = address;
    options.port = port;
    options.key = std::move(key);
    options.pending_max = handshakes_max;
    options.limits = guarded_limits;
    CHORUS_TRY(FrameListener listener, FrameListener::listen(options));
    return std::unique_ptr<StoreDoor>(std::make_unique<GuardedDoor>(std::move(listener)));
  }
  CHORUS_TRY(UniqueFd listener, listen_tcp(address, port, SOMAXCONN));
  CHORUS_TRY(const tcp::Address listening, tcp::local_address(listener.get()));
  CHORUS_TRY_VOID(tcp::check_guarded(listening, nullptr));
  return std::unique_ptr<StoreDoor>(std::make_unique<BareDoor>(std::move(listener), listening.port()));
}

Result<std::unique_ptr<StoreStream>> connect_store_stream(const std::string& host, int port,
                                                          std::shared_ptr<const ClusterKey> key, Nanoseconds deadline) {
  if (key) {
    CHORUS_TRY(auto connection, connect_to(host, port, std::move(key), deadline, guarded_limits));
    return make_guarded_stream(std::move(connection));
  }
  CHORUS_TRY(UniqueFd socket, connect_tcp(host, port, deadline));
  return make_bare_stream(std::move(socket));
}

}  // namespace chorus
