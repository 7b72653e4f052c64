#include "server/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace chorus {
namespace {

Nanoseconds microseconds_in(const std::string& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool good =
      error == std::errc() && end == text.data() + text.size() && number > 0 && number < INT64_MAX / 1'000;
  return good ? number * 1'000 : 0;
}

}  // namespace

Result<ServiceManager> ServiceManager::open(const std::optional<std::string>& socket,
                                            const std::optional<std::string>& watchdog_us,
                                            const std::optional<std::string>& watchdog_pid) {
  ServiceManager manager;
  if (!socket || socket->empty()) return manager;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if ((socket->front() != '/' && socket->front() != '@') || socket->size() >= sizeof name.sun_path) {
    return fail(ErrorCode::invalid_argument,
                "NOTIFY_SOCKET is '{}': a path or an abstract name (@..) of at most {} bytes", *socket,
                sizeof name.sun_path - 1);
  }
  socket->copy(name.sun_path, socket->size());
  if (socket->front() == '@') name.sun_path[0] = '\0';
  manager.socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket->size());
  if (::connect(manager.socket_.get(), reinterpret_cast<const sockaddr*>(&name), size) != 0) {
    return fail(ErrorCode::unavailable, "NOTIFY_SOCKET {}: {}", *socket, std::strerror(errno));
  }
  const bool is_meant = !watchdog_pid || *watchdog_pid == std::to_string(::getpid());
  if (watchdog_us && is_meant) manager.watchdog_ = microseconds_in(*watchdog_us);
  return manager;
}

void ServiceManager::say(const std::string& state) const {
  if (!socket_.valid()) return;
  if (::send(socket_.get(), state.data(), state.size(), MSG_NOSIGNAL) >= 0) return;
  log(LogLevel::debug, "the service manager could not be told {}: {}", state, std::strerror(errno));
}

void ServiceManager::serves(const std::string& status) {
  say("READY=1\nSTATUS=" + status);
}

void ServiceManager::ends() {
  say("STOPPING=1\nSTATUS=Running answers have their time to end");
}

void ServiceManager::turn(Nanoseconds now) {
  if (watchdog_ == 0 || now - told_at_ < watchdog_ / 2) return;
  told_at_ = now;
  say("WATCHDOG=1");
}

}  // namespace chorus
