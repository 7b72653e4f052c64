// Which nodes a Ray cluster has, asked in the background: an answer takes seconds, half a minute at the worst.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "ray/cluster.h"

namespace chorus::ray_launcher {

class NodeWatch {
 public:
  using Clock = std::chrono::steady_clock;

  explicit NodeWatch(std::string cluster_address);
  NodeWatch(const NodeWatch&) = delete;
  NodeWatch& operator=(const NodeWatch&) = delete;
  ~NodeWatch();

  // Whether the cluster is without this node, by a look that began after `since`. Never waits: while there is no such
  // look one is made, at most every 5 s whoever asks, and the answer is false. A store that does not answer says
  // nothing about its nodes.
  bool has_left(const std::string& node, Clock::time_point since);

 private:
  void keep_looking();

  const std::string cluster_address_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool wanted_ = false;
  bool ended_ = false;
  Clock::time_point looked_at_{};  // when the look at `cluster_` began
  Cluster cluster_;
  std::thread thread_;
};

}  // namespace chorus::ray_launcher
