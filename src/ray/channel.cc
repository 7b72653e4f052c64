#include "ray/channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <stdexcept>

namespace chorus::ray_launcher {
namespace {

constexpr std::size_t line_bytes_max = std::size_t{16} << 20;

}  // namespace

void Channel::send(const Json& message) {
  // Text may come from anywhere (a child's last words): what is not UTF-8 is replaced.
  std::string line = message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t count = ::send(descriptor_, line.data() + at, line.size() - at, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      closed_ = true;
      return;
    }
    at += static_cast<std::size_t>(count);
  }
}

bool Channel::hung_up() const {
  pollfd item{descriptor_, POLLRDHUP, 0};
  return closed_ || (::poll(&item, 1, 0) > 0 && (item.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
}

std::optional<Json> Channel::receive(int timeout_ms) {
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
