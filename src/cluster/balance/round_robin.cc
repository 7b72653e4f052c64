#include "cluster/balance/load_balancer.h"

namespace chorus {
namespace {

// The accepting replicas in turn, whatever their load.
class RoundRobin final : public LoadBalancer {
 public:
  std::optional<std::size_t> pick(const RequestShape&, std::span<const ReplicaLoad> loads) override {
    for (std::size_t step = 0; step < loads.size(); ++step) {
      const std::size_t index = (next_ + step) % loads.size();
      if (!loads[index].accepting) continue;
      next_ = index + 1;
      return index;
    }
    return std::nullopt;
  }

 private:
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<LoadBalancer> make_round_robin() {
  return std::make_unique<RoundRobin>();
}

}  // namespace chorus
