// One descriptor for many: readable when poll(2) would find something among them. For loops that wait by epoll or Asio.
#pragma once

#include <poll.h>

#include <span>
#include <vector>

#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

class PollSet {
 public:
  PollSet();
  // From now on these, as poll(2) takes them: a negative descriptor is none. One that was closed since the last call
  // may have its number again.
  void update(std::span<const pollfd> items);
  int fd() const { return epoll_.get(); }

 private:
  UniqueFd epoll_;
  std::vector<int> watched_;
};

}  // namespace chorus
