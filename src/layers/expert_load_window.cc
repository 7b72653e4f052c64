#include "layers/expert_load_window.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {

void ExpertLoadWindow::push(std::span<const std::uint32_t> loads) {
  CHECK(loads.size() == experts_, "{} loads of {} experts", loads.size(), experts_);
  const std::size_t first = next_ * experts_;
  if (ring_.size() <= first) ring_.resize(first + experts_, 0);
  for (std::size_t i = 0; i < experts_; ++i) {
    totals_[i] += loads[i];
    totals_[i] -= ring_[first + i];
    ring_[first + i] = loads[i];
  }
  next_ = (next_ + 1) % steps_;
}

}  // namespace chorus
