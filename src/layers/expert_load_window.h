// How many tokens each expert had in the last steps of one rank. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace chorus {

class ExpertLoadWindow {
 public:
  // `experts`: of all layers, side by side. Keeps experts * steps numbers of 4 bytes once that many steps were seen.
  ExpertLoadWindow(std::size_t experts, std::size_t steps) : experts_(experts), steps_(steps), totals_(experts) {}

  // The loads of one step; the oldest step goes when the window is full.
  void push(std::span<const std::uint32_t> loads);
  // The sums over the window.
  std::span<const std::uint64_t> totals() const { return totals_; }

 private:
  std::size_t experts_, steps_;
  std::size_t next_ = 0;             // the place of the next step in the ring
  std::vector<std::uint32_t> ring_;  // [steps so far, experts]
  std::vector<std::uint64_t> totals_;
};

}  // namespace chorus
