#include <array>
#include <utility>

#include "base/philox.h"
#include "cluster/balance/load_balancer.h"

namespace chorus {
namespace {

// Of two accepting replicas drawn at random the one with fewer sequences in flight. Several front ends that know of
// each other only from load reports do not all send to the replica that was the emptiest a report ago: Mitzenmacher,
// "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
class PowerOfTwo final : public LoadBalancer {
 public:
  std::optional<std::size_t> pick(const RequestShape&, std::span<const ReplicaLoad> loads) override {
    std::uint32_t accepting = 0;
    for (const ReplicaLoad& load : loads) accepting += load.accepting ? 1U : 0U;
    if (accepting == 0) return std::nullopt;
    const auto [first, second] = draw_two(accepting);
    const std::size_t a = index_of(loads, first), b = index_of(loads, second);
    return in_flight(loads[b]) < in_flight(loads[a]) ? b : a;
  }

 private:
  // Two different numbers below `count`; twice 0 for a count of 1.
  std::pair<std::uint32_t, std::uint32_t> draw_two(std::uint32_t count) {
    const auto words = philox4x32({static_cast<std::uint32_t>(draws_), static_cast<std::uint32_t>(draws_ >> 32)}, {});
    ++draws_;
    const std::uint32_t first = below(count, words[0]);
    if (count == 1) return {first, first};
    const std::uint32_t other = below(count - 1, words[1]);
    return {first, other + (other >= first ? 1U : 0U)};
  }

  static std::uint32_t below(std::uint32_t count, std::uint32_t word) {
    return static_cast<std::uint32_t>((std::uint64_t{count} * word) >> 32);
  }

  // Of the accepting replica with `number` accepting ones before it.
  static std::size_t index_of(std::span<const ReplicaLoad> loads, std::uint32_t number) {
    std::size_t index = 0;
    while (!loads[index].accepting || number-- > 0) ++index;
    return index;
  }

  static std::uint64_t in_flight(const ReplicaLoad& load) { return std::uint64_t{load.waiting} + load.running; }

  std::uint64_t draws_ = 0;
};

}  // namespace

std::unique_ptr<LoadBalancer> make_power_of_two() {
  return std::make_unique<PowerOfTwo>();
}

}  // namespace chorus
