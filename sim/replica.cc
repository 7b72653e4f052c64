#include "replica.h"

#include <algorithm>
#include <utility>

namespace chorus::sim {
namespace {

constexpr std::uint64_t steps_between_invariant_checks = 32;

}  // namespace

ToyModel::Config toy_config(const SchedulerConfig& config) {
  ToyModel::Config toy;
  toy.kv_blocks = config.kv_blocks;
  toy.block_size = config.block_size;
  toy.vocab_size = config.vocab_size;
  toy.plans_in_flight_max = config.plans_in_flight_max;
  toy.kv_pools = config.kv_pools;
  toy.kv_pool_tokens = config.kv_pool_tokens;
  toy.kv_window = config.kv_window;
  return toy;
}

Replica::Replica(Placement placement, std::uint64_t world, const SchedulerConfig& config)
    : placement_(placement),
      world_(world),
      kv_blocks_(config.kv_blocks),
      plans_in_flight_max_(config.plans_in_flight_max),
      scheduler_(make_scheduler(config)),
      pipeline_(toy_config(config)) {}

void Replica::receive(ClientId client, ReplicaMessage message) {
  inbox_.emplace_back(client, std::move(message));
}

void Replica::client_left(ClientId client) {
  std::erase_if(inbox_, [&](const auto& arrived) { return arrived.first == client; });
  scheduler_->abort_client(client);
  requests_.erase(client);
}

bool Replica::has_work() const {
  return !inbox_.empty() || scheduler_->has_work();
}

void Replica::take_in() {
  for (auto& [client, message] : std::exchange(inbox_, {})) {
    --links[client].unread;
    if (message.kind != ReplicaMessage::Kind::reset_prefix_cache) ++links[client].received;
    switch (message.kind) {
      case ReplicaMessage::Kind::add:
        requests_[client].insert(message.id);
        fresh_.push_back(message.id);
        scheduler_->add(std::move(message.request));
        break;
      case ReplicaMessage::Kind::abort:
        scheduler_->abort(message.id);
        break;
      case ReplicaMessage::Kind::abort_choice:
        scheduler_->abort_choice(message.id, message.choice);
        break;
      case ReplicaMessage::Kind::reset_prefix_cache:
        scheduler_->reset_prefix_cache();
        break;
    }
  }
}

std::vector<TokenEvent> Replica::step() {
  take_in();
  std::vector<TokenEvent> events;
  if (scheduler_->has_work()) {
    while (scheduler_->plans_in_flight() < plans_in_flight_max_) {
      const StepPlan& plan = scheduler_->schedule(0);
      if (plan.rows == 0) break;
      pipeline_.submit(plan);
    }
    most_in_flight_ = std::max<std::uint64_t>(most_in_flight_, pipeline_.in_flight());
    if (scheduler_->plans_in_flight() > 0) pipeline_.collect(&result_);
    scheduler_->complete(result_, 0, &events);
  }
  if (++steps_ % steps_between_invariant_checks == 0) scheduler_->check_invariants();
  for (auto& [client, requests] : requests_) {
    std::erase_if(requests, [&](RequestId request) { return !scheduler_->contains(request); });
  }
  return events;
}

LoadReport Replica::load(ClientId client) const {
  const SchedulerStats stats = scheduler_->stats();
  const auto link = links.find(client);
  return {stats.waiting, stats.running, stats.kv_blocks_free, link == links.end() ? 0 : link->second.received};
}

std::set<RequestId> Replica::requests() const {
  std::set<RequestId> all;
  for (const auto& [client, requests] : requests_) {
    for (const RequestId request : requests) {
      if (scheduler_->contains(request)) all.insert(request);
    }
  }
  for (const auto& [client, message] : inbox_) {
    if (message.kind == ReplicaMessage::Kind::add) all.insert(message.id);
  }
  return all;
}

bool Replica::is_clean() const {
  scheduler_->check_invariants();
  const SchedulerStats stats = scheduler_->stats();
  return !scheduler_->has_work() && stats.waiting == 0 && stats.running == 0 &&
         stats.kv_blocks_free == static_cast<std::uint64_t>(kv_blocks_);
}

}  // namespace chorus::sim
