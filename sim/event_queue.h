// Simulated time: what shall happen when. Events of the same time happen in the order in which they were added, so a
// run is a function of its seed.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"

namespace chorus::sim {

class EventQueue {
 public:
  using Action = std::function<void()>;

  Nanoseconds now() const { return now_; }
  bool empty() const { return events_.empty(); }
  Nanoseconds next_time() const { return events_.top().at; }

  void at(Nanoseconds time, Action action) {
    CHECK(time >= now_, "time {} is before now {}", time, now_);
    events_.push({time, added_++, std::move(action)});
  }
  void after(Nanoseconds delay, Action action) { at(now_ + delay, std::move(action)); }

  // Moves the clock to the next event and runs it.
  void step() {
    // top() is const; moving the action out leaves the keys that the heap compares as they are.
    Event& top = const_cast<Event&>(events_.top());
    const Action action = std::move(top.action);
    now_ = top.at;
    events_.pop();
    action();
  }

 private:
  struct Event {
    Nanoseconds at;
    std::uint64_t order;
    Action action;
    bool operator<(const Event& other) const {  // priority_queue gives the greatest first
      return std::pair(at, order) > std::pair(other.at, other.order);
    }
  };

  Nanoseconds now_ = 0;
  std::uint64_t added_ = 0;
  std::priority_queue<Event> events_;
};

}  // namespace chorus::sim
