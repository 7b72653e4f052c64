#include "layers/expert_balancer.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "layers/expert_rebalance.h"

namespace chorus {
namespace {

Result<std::vector<double>> sum_over_ranks(Group& ep, std::span<const std::uint64_t> own) {
  std::vector<std::uint64_t> all(own.size() * static_cast<std::size_t>(ep.size()));
  CHORUS_TRY_VOID(ep.all_gather_bytes(std::as_bytes(own), std::as_writable_bytes(std::span(all))));
  std::vector<double> sums(own.size());
  for (std::size_t i = 0; i < own.size(); ++i) {
    std::uint64_t sum = 0;
    for (std::size_t first = 0; first < all.size(); first += own.size()) sum += all[first + i];
    sums[i] = static_cast<double>(sum);
  }
  return sums;
}

}  // namespace

ExpertBalancer::ExpertBalancer(const EplbConfig& config, const Site& site, ExpertSlots& slots)
    : config_(config),
      site_(site),
      slots_(slots),
      window_(slots.loads().size(), static_cast<std::size_t>(config.window_size)) {
  CHECK(config.window_size > 0 && config.step_interval > 0, "window {}, interval {}", config.window_size,
        config.step_interval);
}

Result<void> ExpertBalancer::finish_step(Group& ep, const Progress& progress) {
  window_.push(slots_.loads());
  slots_.clear_loads();
  if (++steps_ < config_.step_interval) return {};
  steps_ = 0;
  ++rearrangements_;
  return rearrange(ep, progress);
}

Result<void> ExpertBalancer::rearrange(Group& ep, const Progress& progress) {
  CHORUS_TRY(const std::vector<double> loads, sum_over_ranks(ep, window_.totals()));
  const auto experts = static_cast<std::size_t>(slots_.experts());
  double before = 0, after = 0;
  for (int layer = 0; layer < slots_.layers(); ++layer) {
    const auto own = std::span(loads).subspan(static_cast<std::size_t>(layer) * experts, experts);
    const ExpertPlacement old = slots_.placement(layer);
    const ExpertPlacement next =
        keep_slots(old, rebalance_experts(own, {old.slots(), site_.groups, site_.nodes, ep.size()}));
    const double as_is = balancedness(own, old), as_moved = balancedness(own, next);
    before += as_is / slots_.layers();
    after += std::max(as_is, as_moved) / slots_.layers();
    if (as_moved > as_is) CHORUS_TRY_VOID(slots_.rearrange(ep, layer, next));
    progress.moved();
  }
  if (config_.log_balancedness && ep.rank() == 0) {
    log(LogLevel::info,
        "experts rearranged over {} ranks: balancedness (mean / largest load of a rank, mean over {} layers) {:.3f} -> "
        "{:.3f}",
        ep.size(), slots_.layers(), before, after);
  }
  return {};
}

}  // namespace chorus
