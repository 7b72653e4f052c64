#include "ray/raylet_watch.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

namespace chorus::ray_launcher {

RayletWatch::RayletWatch(const std::string& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.empty() || socket.size() >= sizeof address.sun_path) return;
  socket.copy(address.sun_path, socket.size());
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  ucred peer{};  // who listens there
  socklen_t size = sizeof peer;
  if (::connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      ::getsockopt(probe, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0) {
    process_ = static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0U));  // closes on exec
  }
  ::close(probe);
}

RayletWatch::~RayletWatch() {
  if (process_ >= 0) ::close(process_);
}

bool RayletWatch::has_ended() const {
  pollfd item{process_, POLLIN, 0};  // a negative descriptor is skipped by poll(2)
  return ::poll(&item, 1, 0) > 0 && item.revents != 0;
}

}  // namespace chorus::ray_launcher
