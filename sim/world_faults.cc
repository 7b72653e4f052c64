// Births and deaths of simulated processes, what goes wrong in between, and what an operator does.
#include <algorithm>

#include "world.h"

namespace chorus::sim {
namespace {

constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds heartbeat_gap = 50 * millisecond;
constexpr Nanoseconds zombie_life = 300 * millisecond;
constexpr int replicas_max = 8;

}  // namespace

// Epoch 0: the newest.
Replica* World::find(Placement placement) {
  const auto at = std::find_if(replicas_.rbegin(), replicas_.rend(), [&](const auto& replica) {
    return replica->placement().rank == placement.rank &&
           (placement.epoch == 0 || replica->placement().epoch == placement.epoch);
  });
  CHECK(at != replicas_.rend(), "no replica {} epoch {}", placement.rank, placement.epoch);
  return at->get();
}

// It has not been declared dead.
bool World::is_present(const Replica& replica) const {
  const Placement placement = replica.placement();
  return placement.epoch > died_[static_cast<std::size_t>(placement.rank)];
}

void World::spawn(const CoordinatorAction& action) {
  replicas_.push_back(std::make_unique<Replica>(action.replica, action.number, shape_.scheduler));
  Replica* const replica = replicas_.back().get();
  if (config_.faults && random_.chance(0.03)) return;  // hangs while starting
  const Nanoseconds load_time = random_.between(5, 150) * millisecond;
  const bool fails = config_.faults && random_.chance(0.05);
  queue_.after(load_time, [this, replica, fails] {
    if (replica->state != Replica::State::loading) return;
    if (fails) return crash(replica);
    replica->state = Replica::State::running;
    send_from_replica(replica, Replica::parent, [this, replica] { ready(replica); });
    heartbeat(replica);
  });
}

void World::ready(Replica* replica) {
  coordinator_.ready(replica->placement(), queue_.now());
}

void World::heartbeat(Replica* replica) {
  if (replica->state == Replica::State::dead || over_) return;
  if (replica->state == Replica::State::running) {
    send_from_replica(replica, Replica::parent,
                      [this, replica] { coordinator_.heartbeat(replica->placement(), queue_.now()); });
  }
  queue_.after(heartbeat_gap, [this, replica] { heartbeat(replica); });
}

void World::inject_fault() {
  if (arrived_ == jobs_.size() || over_) return;
  std::vector<Replica*> victims;
  for (const auto& replica : replicas_) {
    if (replica->state == Replica::State::running || replica->state == Replica::State::loading)
      victims.push_back(replica.get());
  }
  if (random_.chance(0.15)) {
    front_end_dies();
  } else if (!victims.empty()) {
    Replica* const victim = victims[random_.next() % victims.size()];
    if (random_.chance(0.06)) {
      for (Replica* const replica : victims) crash(replica);
    } else if (random_.chance(0.35) && victim->state == Replica::State::running) {
      stop(victim);
    } else {
      crash(victim);
    }
  }
  queue_.after(random_.exponential(static_cast<double>(shape_.fault_gap)), [this] { inject_fault(); });
}

// The parent and the replicas learn of it each in their own time; then another one is started in its place.
void World::front_end_dies() {
  const std::vector<FrontEnd*> living = living_front_ends();
  if (living.empty()) return;
  FrontEnd* const front_end = living[random_.next() % living.size()];
  const ClientId client = front_end->id;
  front_end->alive = false;
  ++totals_.front_end_deaths;
  clients_.front_end_died(client);
  for (const auto& replica : replicas_) {
    queue_.after(delay(), [this, replica = replica.get(), client] {
      if (replica->state == Replica::State::dead) return;
      replica->client_left(client);
      if (replica->state == Replica::State::running && !replica->stepping) report(replica, {});
      step_if_idle(replica);
    });
  }
  queue_.after(delay(), [this, client] {
    coordinator_.client_left(client, queue_.now());
    pump();
  });
  queue_.after(random_.between(20, 200) * millisecond, [this] {
    if (over_) return;
    start_front_end();
    pump();
  });
}

// An operator drains a replica for a while, takes one away, adds one, restarts one, or pauses all of them.
void World::operate() {
  if (arrived_ == jobs_.size() || over_) return;
  std::vector<int> ready, there;
  for (int replica = 0; replica < coordinator_.replicas(); ++replica) {
    const ReplicaState state = coordinator_.state(replica);
    if (state == ReplicaState::removed || removing_.contains(replica)) continue;
    there.push_back(replica);
    if (state == ReplicaState::ready) ready.push_back(replica);
  }
  const auto one_of = [&](const std::vector<int>& replicas) { return replicas[random_.next() % replicas.size()]; };
  const auto kind = random_.between(0, 5);
  if (kind <= 1 && ready.size() > 1) {
    drain_for_a_while(one_of(ready));
  } else if (kind == 2 && ready.size() > 1 && !shape_.together) {
    const int replica = one_of(ready);
    removing_.insert(replica);
    ++totals_.removals;
    CHECK(coordinator_.remove(replica, random_.chance(0.5), queue_.now()).ok(), "replica {}", replica);
  } else if (kind == 3 && ready.size() < replicas_max && !shape_.together) {
    CHECK(coordinator_.add_replica(ReplicaOrigin::spawned, queue_.now()).ok(), "one more replica");
    died_.push_back(0);
    ++totals_.additions;
  } else if (kind == 4 && !there.empty() && (!shape_.together || ready.size() == there.size())) {
    ++totals_.restarts;
    CHECK(coordinator_.restart(one_of(there), queue_.now()).ok(), "a restart");
  } else if (kind == 5) {
    pause_for_a_while();
  }
  pump();
  queue_.after(random_.exponential(static_cast<double>(shape_.operation_gap)), [this] { operate(); });
}

// Half of the time the operator changes their mind at once.
Nanoseconds World::while_of_an_operator() {
  return (random_.chance(0.5) ? random_.between(0, 2) : random_.between(10, 500)) * millisecond;
}

void World::drain_for_a_while(int replica) {
  ++totals_.drains;
  coordinator_.drain(replica, random_.chance(0.5), queue_.now());
  if (random_.chance(0.2)) {
    coordinator_.resume(replica, queue_.now());
    coordinator_.drain(replica, random_.chance(0.5), queue_.now());
  }
  queue_.after(while_of_an_operator(), [this, replica] {
    coordinator_.resume(replica, queue_.now());
    pump();
  });
}

void World::pause_for_a_while() {
  ++totals_.pauses;
  coordinator_.pause(random_.chance(0.5), queue_.now());
  queue_.after(while_of_an_operator(), [this] {
    coordinator_.resume_all(queue_.now());
    pump();
  });
}

// The process is gone. Of what it had sent a part still arrives, perhaps after the news of its death.
void World::crash(Replica* replica) {
  if (replica->state == Replica::State::dead) return;
  replica->state = Replica::State::dead;
  for (auto& [client, link] : replica->links) {
    const auto in_flight = static_cast<std::int64_t>(link.sent - link.arrived);
    link.surviving = link.arrived + static_cast<std::uint64_t>(random_.between(0, in_flight));
  }
  const Placement placement = replica->placement();
  queue_.after(delay(), [this, placement] {
    coordinator_.exited(placement, {0, 9}, queue_.now());
    pump();
  });
  if (!random_.chance(0.3)) return;
  queue_.after(delay(), [this, placement] {  // its connection breaks, before or after the exit is seen
    coordinator_.fault(placement, queue_.now());
    pump();
  });
}

void World::stop(Replica* replica) {
  replica->state = Replica::State::stopped;
  replica->unreachable = random_.chance(0.5);
  queue_.after(random_.between(50, 2000) * millisecond, [this, replica] { wake(replica); });
}

void World::wake(Replica* replica) {
  if (replica->state != Replica::State::stopped) return;
  replica->state = Replica::State::running;
  if (replica->held) std::exchange(replica->held, nullptr)();
  if (!is_present(*replica)) {
    ++totals_.zombies;
    queue_.after(zombie_life, [this, replica] { crash(replica); });
  }
  replica->unreachable = replica->unreachable && !is_present(*replica);
  if (shape_.together) {
    for (Replica* const member : members(replica->world())) step_if_idle(member);
  }
  step_if_idle(replica);
}

void World::kill(Placement placement) {
  Replica* const replica = find(placement);
  if (replica->unreachable) return;
  queue_.after(delay(), [this, replica] { crash(replica); });
}

}  // namespace chorus::sim
