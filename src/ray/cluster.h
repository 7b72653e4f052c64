// The nodes of a Ray cluster, which Ray's C++ API does not list: a short Python program asks for them (cluster.py).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ray/channel.h"

namespace chorus::ray_launcher {

struct ClusterNode {
  std::string address;
  bool here = false;  // an address of this machine
  bool head = false;
  std::string raylet;  // the path of its raylet's socket, on its machine
  Json resources;      // {"cpus", "cpus_free", "gpus", "gpus_free", "memory_bytes"}
};

struct Cluster {
  std::string address;  // of its head: HOST:PORT
  std::vector<ClusterNode> nodes;

  // The node that a program on this machine talks to; nullptr: none is here.
  const ClusterNode* own_node() const;
  bool has(const std::string& node_address) const;
};

// "HOST:PORT", "[HOST]:PORT" or "auto". Throws std::runtime_error: nobody answers there within 40 s, it is another
// version, or `interrupted`, which is asked every 100 ms.
Cluster look_at_cluster(const std::string& address, const std::function<bool()>& interrupted);

}  // namespace chorus::ray_launcher
