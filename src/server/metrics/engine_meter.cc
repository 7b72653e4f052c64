#include "server/metrics/engine_meter.h"

#include <fmt/format.h>

#include <utility>

namespace chorus {
namespace {

constexpr Nanoseconds line_interval = 10'000'000'000;

// The counters of `added` on top; not what holds at a moment.
void add_counters(EngineLoad* sum, const EngineLoad& added) {
  sum->preemptions += added.preemptions;
  sum->prefix_cache_queries += added.prefix_cache_queries;
  sum->prefix_cache_hits += added.prefix_cache_hits;
  sum->prefix_cache_resets += added.prefix_cache_resets;
  sum->steps += added.steps;
  sum->prompt_tokens += added.prompt_tokens;
  sum->output_tokens += added.output_tokens;
  sum->rows += added.rows;
  if (sum->steps_by_rows.size() < added.steps_by_rows.size()) sum->steps_by_rows.resize(added.steps_by_rows.size());
  for (std::size_t i = 0; i < added.steps_by_rows.size(); ++i) sum->steps_by_rows[i] += added.steps_by_rows[i];
}

double used_part(const EngineLoad& load) {
  if (load.kv_blocks_total == 0) return 0;
  return 1 - static_cast<double>(load.kv_blocks_free) / static_cast<double>(load.kv_blocks_total);
}

double rate(std::uint64_t now, std::uint64_t before, double interval_s) {
  return static_cast<double>(now - before) / interval_s;
}

}  // namespace

EngineMeter::EngineMeter(MetricSlot slot, int engines)
    : slot_(std::move(slot)), engines_(static_cast<std::size_t>(engines)) {}

EngineLoad EngineMeter::Engine::total() const {
  EngineLoad total = ended;
  add_counters(&total, now.load);
  return total;
}

void EngineMeter::take(std::span<const ReplicaStatus> replicas) {
  for (const ReplicaStatus& replica : replicas) {
    const auto rank = static_cast<std::size_t>(replica.dp_rank);
    if (rank >= engines_.size()) engines_.resize(rank + 1);
    Engine& engine = engines_[rank];
    if (replica.load.steps < engine.now.load.steps) add_counters(&engine.ended, engine.now.load);
    engine.now = replica;
    write(engine, replica.dp_rank);
  }
}

void EngineMeter::write(const Engine& engine, int rank) const {
  const EngineLoad total = engine.total();
  const EngineLoad present = engine.now.alive ? engine.now.load : EngineLoad{};
  const MetricSeries series{rank, 0};
  slot_.set(Metric::requests_running, present.running, series);
  slot_.set(Metric::requests_waiting, present.waiting, series);
  slot_.set(Metric::requests_waiting_by_reason, present.waiting, {rank, metric_value::capacity});
  slot_.set(Metric::kv_cache_usage, used_part(present), series);
  slot_.set(Metric::engine_sleep_state, 1, {rank, metric_value::awake});
  slot_.set(Metric::kv_blocks, static_cast<double>(present.kv_blocks_total), series);
  slot_.set(Metric::replica_ready, engine.now.condition == ReplicaCondition::ready ? 1 : 0, series);
  for (std::size_t state = 0; state <= metric_value::removed; ++state) {
    slot_.set(Metric::replica_state, state == static_cast<std::size_t>(engine.now.condition) ? 1 : 0, {rank, state});
  }
  slot_.set_counter(Metric::replica_deaths, engine.now.deaths, series);
  slot_.set_counter(Metric::prefix_cache_queries, total.prefix_cache_queries, series);
  slot_.set_counter(Metric::prefix_cache_hits, total.prefix_cache_hits, series);
  slot_.set_counter(Metric::prefix_cache_resets, total.prefix_cache_resets, series);
  slot_.set_counter(Metric::preemptions, total.preemptions, series);
  if (total.steps_by_rows.size() != std::size(step_rows_bounds) + 1) return;
  slot_.set_histogram(Metric::step_rows, total.steps_by_rows, static_cast<double>(total.rows), series);
}

std::vector<std::string> EngineMeter::log_lines(Nanoseconds now) {
  std::vector<std::string> lines;
  if (!last_lines_at_) last_lines_at_ = now;
  if (now - *last_lines_at_ < line_interval) return lines;
  const double interval_s = static_cast<double>(now - *std::exchange(last_lines_at_, now)) * 1e-9;
  for (Engine& engine : engines_) {
    const bool worked = engine.total().rows != engine.at_last_line.rows;
    const bool holds_some = engine.now.alive && engine.now.load.waiting + engine.now.load.running > 0;
    if (worked || holds_some) lines.push_back(line(engine, interval_s));
    engine.at_last_line = engine.total();
  }
  return lines;
}

std::string EngineMeter::line(Engine& engine, double interval_s) {
  const EngineLoad total = engine.total();
  const EngineLoad& before = engine.at_last_line;
  const std::uint64_t queries = total.prefix_cache_queries - before.prefix_cache_queries;
  if (queries > 0) {
    engine.hit_rate =
        static_cast<double>(total.prefix_cache_hits - before.prefix_cache_hits) / static_cast<double>(queries);
  }
  const EngineLoad present = engine.now.alive ? engine.now.load : EngineLoad{};
  return fmt::format(
      "Engine {:03}: Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, Running: {} "
      "reqs, Waiting: {} reqs, GPU KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%",
      engine.now.dp_rank, rate(total.prompt_tokens, before.prompt_tokens, interval_s),
      rate(total.output_tokens, before.output_tokens, interval_s), present.running, present.waiting,
      used_part(present) * 100, engine.hit_rate * 100);
}

}  // namespace chorus
