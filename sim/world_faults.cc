// Births and deaths of simulated replicas, and what goes wrong in between.
#include <algorithm>

#include "world.h"

namespace chorus::sim {
namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;
constexpr Nanoseconds kHeartbeatGap = 50 * kMillisecond;
constexpr Nanoseconds kZombieLife = 300 * kMillisecond;

}  // namespace

Replica* World::find(Placement placement) {
  const auto at = std::find_if(replicas_.rbegin(), replicas_.rend(),
                               [&](const auto& replica) { return replica->placement() == placement; });
  CHECK(at != replicas_.rend(), "no replica {} epoch {}", placement.rank, placement.epoch);
  return at->get();
}

// The supervisor has not declared it dead.
bool World::is_present(const Replica& replica) const {
  const Placement placement = replica.placement();
  return placement.epoch > died_[static_cast<std::size_t>(placement.rank)];
}

void World::spawn(Placement placement) {
  replicas_.push_back(std::make_unique<Replica>(placement, shape_.scheduler));
  Replica* const replica = replicas_.back().get();
  if (config_.faults && random_.chance(0.03)) return;  // hangs while starting
  const Nanoseconds load_time = random_.between(5, 150) * kMillisecond;
  const bool fails = config_.faults && random_.chance(0.05);
  queue_.after(load_time, [this, replica, fails] {
    if (replica->state != Replica::State::loading) return;
    if (fails) return crash(replica);
    replica->state = Replica::State::running;
    send_to_front_end(replica, [this, replica] { ready(replica); });
    heartbeat(replica);
  });
}

void World::ready(Replica* replica) {
  const Placement placement = replica->placement();
  supervisor_.ready(placement, queue_.now());
  const bool accepted =
      supervisor_.epoch(placement.rank) == placement.epoch && supervisor_.state(placement.rank) == ReplicaState::ready;
  if (accepted) router_.replica_ready(placement);
}

void World::heartbeat(Replica* replica) {
  if (replica->state == Replica::State::dead) return;
  if (replica->state == Replica::State::running) {
    send_to_front_end(replica, [this, replica] { supervisor_.heartbeat(replica->placement(), queue_.now()); });
  }
  queue_.after(kHeartbeatGap, [this, replica] { heartbeat(replica); });
}

void World::inject_fault() {
  std::vector<Replica*> victims;
  for (const auto& replica : replicas_) {
    if (replica->state == Replica::State::running || replica->state == Replica::State::loading)
      victims.push_back(replica.get());
  }
  if (!victims.empty()) {
    Replica* const victim = victims[random_.next() % victims.size()];
    if (random_.chance(0.06)) {
      for (Replica* const replica : victims) crash(replica);
    } else if (random_.chance(0.35) && victim->state == Replica::State::running) {
      stop(victim);
    } else {
      crash(victim);
    }
  }
  if (arrived_ == jobs_.size()) return;
  queue_.after(random_.exponential(static_cast<double>(shape_.fault_gap)), [this] { inject_fault(); });
}

// The process is gone. Of what it had sent a part still arrives, perhaps after the news of its death.
void World::crash(Replica* replica) {
  if (replica->state == Replica::State::dead) return;
  replica->state = Replica::State::dead;
  const std::uint64_t in_flight = replica->frames_sent - replica->frames_arrived;
  replica->frames_surviving =
      replica->frames_arrived + static_cast<std::uint64_t>(random_.between(0, static_cast<std::int64_t>(in_flight)));
  const Placement placement = replica->placement();
  queue_.after(delay(), [this, placement] {
    supervisor_.exited(placement, {0, 9}, queue_.now());
    pump();
  });
  if (!random_.chance(0.3)) return;
  queue_.after(delay(), [this, placement] {  // its connection breaks, before or after the exit is seen
    supervisor_.fault(placement, queue_.now());
    pump();
  });
}

void World::stop(Replica* replica) {
  replica->state = Replica::State::stopped;
  replica->unreachable = random_.chance(0.5);
  queue_.after(random_.between(50, 2000) * kMillisecond, [this, replica] { wake(replica); });
}

void World::wake(Replica* replica) {
  if (replica->state != Replica::State::stopped) return;
  replica->state = Replica::State::running;
  if (replica->held) send_to_front_end(replica, std::exchange(replica->held, nullptr));
  if (!is_present(*replica)) {
    ++totals_.zombies;
    queue_.after(kZombieLife, [this, replica] { crash(replica); });
  }
  replica->unreachable = replica->unreachable && !is_present(*replica);
  step_if_idle(replica);
}

void World::kill(Placement placement) {
  Replica* const replica = find(placement);
  if (replica->unreachable) return;
  queue_.after(delay(), [this, replica] { crash(replica); });
}

}  // namespace chorus::sim
