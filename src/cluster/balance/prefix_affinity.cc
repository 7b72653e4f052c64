#include <utility>

#include "cluster/balance/load_balancer.h"

namespace chorus {
namespace {

// The replica that has most of the prompt's beginning in its prefix cache, among those that are not too busy: with at
// most 1.25 times as many sequences in flight as the emptiest one, and 4 more. Among equals the one with the fewest, in
// turn. So the imbalance that hits may cost is bounded, and a prompt that nobody knows goes where least_loaded sends
// it.
//
// Known is what the replicas have said (prefix_index.h): 20 ms old, and without what is being computed. Prompts that
// begin alike and come within that time may go to several replicas.
class PrefixAffinity final : public LoadBalancer {
 public:
  bool looks_at_prefixes() const override { return true; }

  std::optional<std::size_t> pick(const RequestShape&, std::span<const ReplicaLoad> loads) override {
    std::optional<std::uint64_t> fewest;
    for (const ReplicaLoad& load : loads) {
      if (load.accepting && (!fewest || in_flight(load) < *fewest)) fewest = in_flight(load);
    }
    if (!fewest) return std::nullopt;
    const std::uint64_t most = *fewest + *fewest / 4 + 4;
    std::optional<std::size_t> best;
    for (std::size_t step = 0; step < loads.size(); ++step) {
      const std::size_t index = (next_ + step) % loads.size();
      if (!loads[index].accepting || in_flight(loads[index]) > most) continue;
      if (!best || is_better(loads[index], loads[*best])) best = index;
    }
    next_ = *best + 1;
    return best;
  }

 private:
  static std::uint64_t in_flight(const ReplicaLoad& load) { return std::uint64_t{load.waiting} + load.running; }
  static bool is_better(const ReplicaLoad& load, const ReplicaLoad& than) {
    if (load.prefix_tokens != than.prefix_tokens) return load.prefix_tokens > than.prefix_tokens;
    return std::pair(in_flight(load), load.waiting) < std::pair(in_flight(than), than.waiting);
  }

  std::size_t next_ = 0;  // where the search begins
};

}  // namespace

std::unique_ptr<LoadBalancer> make_prefix_affinity() {
  return std::make_unique<PrefixAffinity>();
}

}  // namespace chorus
