#include "ray/node_watch.h"

#include <exception>

namespace chorus::ray_launcher {
namespace {

constexpr auto look_every = std::chrono::seconds(5);

}  // namespace

NodeWatch::NodeWatch(std::string cluster_address)
    : cluster_address_(std::move(cluster_address)), thread_([this] { keep_looking(); }) {}

NodeWatch::~NodeWatch() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool NodeWatch::has_left(const std::string& node, Clock::time_point since) {
  const std::lock_guard lock(mutex_);
  if (looked_at_ > since) return !cluster_.has(node);
  wanted_ = true;
  changed_.notify_all();
  return false;
}

void NodeWatch::keep_looking() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return wanted_ || ended_; });
    if (ended_) return;
    wanted_ = false;
    const auto begin = Clock::now();
    lock.unlock();
    Cluster seen;
    try {
      seen = look_at_cluster(cluster_address_, [this] {
        const std::lock_guard inner(mutex_);
        return ended_;
      });
    } catch (const std::exception&) {
      seen.nodes.clear();
    }
    lock.lock();
    if (!seen.nodes.empty()) {
      cluster_ = std::move(seen);
      looked_at_ = begin;
    }
    changed_.wait_until(lock, begin + look_every, [&] { return ended_; });
  }
}

}  // namespace chorus::ray_launcher
