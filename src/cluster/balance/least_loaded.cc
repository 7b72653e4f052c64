#include <utility>

#include "cluster/balance/load_balancer.h"

namespace chorus {
namespace {

// The replica with the fewest sequences in flight; among equals the one with the fewest waiting; among those in turn.
//
// vLLM scores 4 * waiting + running, because its counts are as old as the last report and waiting ones are the better
// sign of a full replica. Here the counts include everything sent since (load_view.h), so the plain sum is the truth,
// and a weight would only make a request look four times as heavy for the moment until the engine has seen it.
class LeastLoaded final : public LoadBalancer {
 public:
  std::optional<std::size_t> pick(const RequestShape&, std::span<const ReplicaLoad> loads) override {
    std::optional<std::size_t> best;
    std::pair<std::uint64_t, std::uint32_t> best_score;
    for (std::size_t step = 0; step < loads.size(); ++step) {
      const std::size_t index = (next_ + step) % loads.size();
      const ReplicaLoad& load = loads[index];
      if (!load.accepting) continue;
      const std::pair score{std::uint64_t{load.waiting} + load.running, load.waiting};
      if (best && score >= best_score) continue;
      best = index;
      best_score = score;
    }
    if (best) next_ = *best + 1;
    return best;
  }

 private:
  std::size_t next_ = 0;  // where the search begins: equals are taken in turn
};

}  // namespace

std::unique_ptr<LoadBalancer> make_least_loaded() {
  return std::make_unique<LeastLoaded>();
}

}  // namespace chorus
