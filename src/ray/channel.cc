#include "ray/channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <stdexcept>

namespace chorus::ray_launcher {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t line_bytes_max = std::size_t{16} << 20;

}  // namespace

void Channel::send(const Json& message) {
  // Text may come from anywhere (a child's last words): what is not UTF-8 is replaced.
  unsent_ += message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  flush(0);
  if (unsent_.size() > line_bytes_max) closed_ = true;
}

void Channel::flush(int timeout_ms) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  std::size_t at = 0;
  while (at < unsent_.size() && !closed_) {
    const ssize_t count = ::send(descriptor_, unsent_.data() + at, unsent_.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      at += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      if (left <= 0) break;
      pollfd item{descriptor_, POLLOUT, 0};
      ::poll(&item, 1, static_cast<int>(left));
    } else if (errno != EINTR) {
      closed_ = true;
    }
  }
  unsent_.erase(0, at);
}

bool Channel::hung_up() const {
  pollfd item{descriptor_, POLLRDHUP, 0};
  return closed_ || (::poll(&item, 1, 0) > 0 && (item.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
}

std::optional<Json> Channel::receive(int timeout_ms) {
  flush(0);
  while (true) {
    if (const auto end = received_.find('\n'); end != std::string::npos) {
      Json message = Json::parse(received_.substr(0, end), nullptr, false);
      received_.erase(0, end + 1);
      if (!message.is_object()) throw std::runtime_error("what came from chorus is no JSON object");
      return message;
    }
    if (closed_) return std::nullopt;
    pollfd item{descriptor_, POLLIN, 0};
    if (::poll(&item, 1, timeout_ms) <= 0) return std::nullopt;
    std::array<char, 65536> bytes;
    const ssize_t count = ::recv(descriptor_, bytes.data(), bytes.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) closed_ = true;
    if (count > 0) received_.append(bytes.data(), static_cast<std::size_t>(count));
    if (received_.size() > line_bytes_max) throw std::runtime_error("a line from chorus passes 16 MiB");
  }
}

}  // namespace chorus::ray_launcher
