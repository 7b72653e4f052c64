// The requests of one front end that wait for a replica with room, in order: by priority (lower first) where that is
// the policy, then by admission. A request keeps its place in the order for its whole life, so one that comes back from
// a dead replica goes before all that came after it. Some wish for one replica. Pure, single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "request/request.h"

namespace chorus {

class WaitingRequests {
 public:
  using Order = std::pair<std::int32_t, std::uint64_t>;  // priority (or 0), admission
  static constexpr int any_replica = -1;

  struct Place {
    int wish = any_replica;
    Order order;
    std::size_t tokens = 0;  // of the prompt
  };

  void push(RequestId request, const Place& place);
  void erase(const Place& place);

  std::size_t size() const { return size_; }
  std::size_t tokens() const { return tokens_; }

  // The first of each wish, by wish; none of these queues is empty.
  struct Entry {
    RequestId request;
    std::size_t tokens = 0;
  };
  using Queue = std::map<Order, Entry>;
  const std::map<int, Queue>& queues() const { return queues_; }

 private:
  std::map<int, Queue> queues_;
  std::size_t size_ = 0;
  std::size_t tokens_ = 0;
};

}  // namespace chorus
