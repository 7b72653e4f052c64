#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <deque>

#include "net/connection.h"

namespace chorus {
namespace {

// What both ends share. side[i] holds what end i will receive.
struct Channel {
  std::deque<Frame> side[2];
  std::size_t bytes[2] = {0, 0};
  bool closed[2] = {false, false};  // end i is gone
};

class MemoryConnection final : public Connection {
 public:
  MemoryConnection(std::shared_ptr<Channel> channel, int end, const ConnectionLimits& limits)
      : channel_(std::move(channel)), end_(end), limits_(limits) {}
  ~MemoryConnection() override { channel_->closed[end_] = true; }

  Result<void> queue(std::uint8_t type, std::uint32_t epoch, std::string payload, int descriptor) override {
    const int peer = 1 - end_;
    if (channel_->closed[peer]) return fail(ErrorCode::unavailable, "sending to the peer: it closed the connection");
    if (payload.size() > limits_.payload_bytes_max) {
      return fail(ErrorCode::invalid_argument, "a message of {} bytes is over the limit of {}", payload.size(),
                  limits_.payload_bytes_max);
    }
    if (channel_->bytes[peer] + payload.size() > limits_.send_queue_bytes_max) {
      return fail(ErrorCode::resource_exhausted, "send queue full: {} bytes wait, the limit is {}",
                  channel_->bytes[peer], limits_.send_queue_bytes_max);
    }
    Frame frame;
    frame.type = type;
    frame.epoch = epoch;
    if (descriptor >= 0) {
      frame.descriptor.reset(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
      if (!frame.descriptor.valid())
        return fail(ErrorCode::internal, "fcntl(F_DUPFD_CLOEXEC): {}", std::strerror(errno));
    }
    channel_->bytes[peer] += payload.size() + frame_header_bytes;
    frame.payload = std::move(payload);
    channel_->side[peer].push_back(std::move(frame));
    return {};
  }

  Result<void> flush() override { return {}; }
  std::size_t queued_bytes() const override { return 0; }

  Result<std::optional<Frame>> receive() override {
    std::deque<Frame>& mine = channel_->side[end_];
    if (mine.empty()) {
      if (channel_->closed[1 - end_]) return fail(ErrorCode::unavailable, "the peer closed the connection");
      return std::optional<Frame>();
    }
    Frame frame = std::move(mine.front());
    mine.pop_front();
    channel_->bytes[end_] -= frame.payload.size() + frame_header_bytes;
    return std::optional<Frame>(std::move(frame));
  }

  Result<bool> wait(int /*timeout_ms*/) override { return !channel_->side[end_].empty() || channel_->closed[1 - end_]; }
  int fd() const override { return -1; }

 private:
  std::shared_ptr<Channel> channel_;
  int end_;
  ConnectionLimits limits_;
};

}  // namespace

std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> make_memory_connections(
    const ConnectionLimits& limits) {
  auto channel = std::make_shared<Channel>();
  return {std::make_unique<MemoryConnection>(channel, 0, limits),
          std::make_unique<MemoryConnection>(channel, 1, limits)};
}

}  // namespace chorus
