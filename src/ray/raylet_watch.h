// The raylet of this machine, through which Ray's library works. When it is killed the library says so after a minute;
// this says it at once.
#pragma once

#include <string>

namespace chorus::ray_launcher {

class RayletWatch {
 public:
  // `socket`: the path of its socket. One that cannot be watched from here never ends.
  explicit RayletWatch(const std::string& socket);
  RayletWatch(const RayletWatch&) = delete;
  RayletWatch& operator=(const RayletWatch&) = delete;
  ~RayletWatch();

  bool has_ended() const;  // never waits

 private:
  int process_ = -1;  // a pidfd
};

}  // namespace chorus::ray_launcher
