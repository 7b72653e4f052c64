// What a replica shows of its work to the process that watches it: that it moves. Its workers count in one page of
// shared memory (worker/progress_memory.h makes it); a value that is handed down to whoever has something to count.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/clock.h"

namespace chorus {

// Zero is the beginning. Every field is written by the replica and read by the watcher alone, each for itself.
struct ProgressPage {
  std::atomic<std::uint64_t> moves;              // layers, shares of logits and steps finished, by all workers
  std::atomic<std::uint32_t> busy;               // the engine has work: `moves` is to grow
  std::atomic<std::int64_t> expected_step_time;  // of the step under way, in nanoseconds; 0: not known yet
};

struct ProgressSample {
  std::uint64_t moves = 0;
  bool busy = false;
  Nanoseconds expected_step_time = 0;
};

class Progress {
 public:
  Progress() = default;  // nobody watches
  explicit Progress(std::shared_ptr<ProgressPage> page) : page_(std::move(page)) {}

  bool watched() const { return page_ != nullptr; }
  void moved() const {
    if (page_) page_->moves.fetch_add(1, std::memory_order_relaxed);
  }
  void set_busy(bool busy) const {
    if (page_) page_->busy.store(busy ? 1 : 0, std::memory_order_relaxed);
  }
  void expect_step(Nanoseconds time) const {
    if (page_) page_->expected_step_time.store(time, std::memory_order_relaxed);
  }
  ProgressSample sample() const {
    if (!page_) return {};
    return {page_->moves.load(std::memory_order_relaxed), page_->busy.load(std::memory_order_relaxed) != 0,
            page_->expected_step_time.load(std::memory_order_relaxed)};
  }

 private:
  std::shared_ptr<ProgressPage> page_;
};

}  // namespace chorus
