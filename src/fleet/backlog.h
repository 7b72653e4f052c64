// Requests that wait on this side for a replica with room: first come first served, or by priority. Some wait for one
// rank. Pure, single-threaded.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "request/request.h"

namespace chorus {

class Backlog {
 public:
  explicit Backlog(bool by_priority) : by_priority_(by_priority) {}

  // `rank`: the one it waits for, nullopt: any. The id must be new here.
  void push(Request request, std::optional<int> rank);
  bool contains(RequestId request) const { return places_.contains(request); }
  std::size_t size() const { return places_.size(); }

  // The first of those that wait for this rank (nullopt: for any); nullopt: nobody waits for it.
  std::optional<Request> take(std::optional<int> rank);

  // False: it is not here.
  bool abort(RequestId request);
  bool abort_choice(RequestId request, std::uint32_t choice);

 private:
  using Order = std::pair<std::int32_t, std::uint64_t>;  // priority (or 0), arrival
  struct Place {
    int rank;
    Order order;
  };
  static constexpr int any_rank = -1;

  bool by_priority_;
  std::uint64_t arrivals_ = 0;
  std::map<int, std::map<Order, Request>> queues_;
  std::unordered_map<RequestId, Place> places_;
};

}  // namespace chorus
