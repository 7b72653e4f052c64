// A Ray cluster of one node, this one, for as long as this object lives. It runs beside any other that is there, is
// reached with a token that only its own processes have, and leaves nothing behind: its process ends with this one.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "ray/cluster.h"

namespace chorus::ray_launcher {

class OwnCluster {
 public:
  OwnCluster() = default;
  OwnCluster(const OwnCluster&) = delete;
  OwnCluster& operator=(const OwnCluster&) = delete;
  ~OwnCluster();

  // What it and this process need, a new token among it: before Ray's library reads the environment.
  static void set_environment();
  // Returns when it answers. Throws std::runtime_error, after timeout_s at the latest, or when `interrupted`. From the
  // main thread: it ends with the calling thread.
  Cluster start(int cpus, int timeout_s, const std::function<bool()>& interrupted);

 private:
  std::string directory_;
  pid_t process_ = 0;
  int log_ = -1;  // what `ray start` says
};

}  // namespace chorus::ray_launcher
