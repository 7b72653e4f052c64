// One simulated front end process: the production Dispatcher, its connection to the parent, and what the world knows of
// it to judge it by.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "base/clock.h"
#include "cluster/dispatcher.h"

namespace chorus::sim {

struct FrontEnd {
  FrontEnd(const DispatcherConfig& config, std::unique_ptr<LoadBalancer> balancer)
      : id(config.client), dispatcher(config, std::move(balancer)) {}

  ClientId id;
  Dispatcher dispatcher;
  bool alive = true;
  Nanoseconds news_free = 0;   // when the last news arrives: the connection keeps its order
  Nanoseconds notes_free = 0;  // when the last note to the parent does
  std::set<int> replicas;      // told ready, and not dead
  std::map<int, Epoch> died;   // a replica's newest epoch of which it was told that it died
  // Requests without a wish that wait, in their order, as the world counts them.
  struct Order {
    std::int32_t priority;
    std::uint64_t admission;
    bool operator<(const Order& other) const {
      return std::tie(priority, admission) < std::tie(other.priority, other.admission);
    }
  };
  std::map<Order, RequestId> waiting;
  std::map<RequestId, Order> orders;
  std::uint64_t admissions = 0;
};

}  // namespace chorus::sim
