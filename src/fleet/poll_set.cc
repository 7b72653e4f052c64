#include "fleet/poll_set.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace chorus {

PollSet::PollSet() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  CHECK(epoll_.valid(), "epoll_create1: {}", std::strerror(errno));
}

void PollSet::update(std::span<const pollfd> items) {
  std::vector<int> now;
  for (const pollfd& item : items) {
    if (item.fd < 0) continue;
    now.push_back(item.fd);
    epoll_event event{};
    event.events = ((item.events & POLLIN) != 0 ? std::uint32_t{EPOLLIN} : 0) |
                   ((item.events & POLLOUT) != 0 ? std::uint32_t{EPOLLOUT} : 0);
    event.data.fd = item.fd;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, item.fd, &event) == 0) continue;
    const bool added = errno == ENOENT && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, item.fd, &event) == 0;
    CHECK(added, "epoll_ctl of descriptor {}: {}", item.fd, std::strerror(errno));
  }
  // What is closed has left by itself.
  for (const int fd : watched_) {
    if (std::ranges::find(now, fd) == now.end()) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
  watched_ = std::move(now);
}

}  // namespace chorus
