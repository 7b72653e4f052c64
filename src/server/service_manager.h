// What a service manager is told of this server, by the protocol of sd_notify(3): that it serves, that it ends, and,
// where it watches, that the server's loop goes round.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

class ServiceManager {
 public:
  // Nobody listens.
  ServiceManager() = default;
  // The values of NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, where there are any. Errors: a socket that is none.
  static Result<ServiceManager> open(const std::optional<std::string>& socket,
                                     const std::optional<std::string>& watchdog_us,
                                     const std::optional<std::string>& watchdog_pid);

  void serves(const std::string& status);
  void ends();
  // Once a turn of the loop: tells of it as often as the manager wants to hear, twice over.
  void turn(Nanoseconds now);

 private:
  void say(const std::string& state) const;

  UniqueFd socket_;
  Nanoseconds watchdog_ = 0;  // 0: it does not watch
  Nanoseconds told_at_ = 0;
};

}  // namespace chorus
