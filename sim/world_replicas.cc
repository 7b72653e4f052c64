// What goes on between front ends, parent and replicas: messages, steps, waves.
#include <algorithm>

#include "world.h"

namespace chorus::sim {
namespace {

constexpr int steps_between_votes = 16;

}  // namespace

void World::send_to_replica(FrontEnd* front_end, Replica* replica, ReplicaMessage message) {
  const ClientId client = front_end->id;
  trace_.add(queue_.now(), client, message.kind, message.id.number, message.choice, replica->placement().rank,
             replica->placement().epoch);
  for (const ChoiceState& choice : message.request.choices) trace_.add(choice.index, choice.emitted.size());
  if (message.kind == ReplicaMessage::Kind::add && front_end->dispatcher.ledger().deaths_seen(message.id) > 0) {
    ++totals_.resubmissions;
  }
  Replica::Link& link = replica->links[client];
  ++link.unread;
  link.in_free = std::max(link.in_free, queue_.now() + delay());
  queue_.at(link.in_free, [this, front_end, replica, shared = std::make_shared<ReplicaMessage>(std::move(message))] {
    if (!front_end->alive || replica->state == Replica::State::dead) return;
    replica->receive(front_end->id, std::move(*shared));
    // Between two waves a message is reason to speak, not to step.
    if (replica->state == Replica::State::running && shape_.together && replica->wave == 0 && !replica->stepping) {
      replica->take_in();
      report(replica, {});
    }
    step_if_idle(replica);
  });
}

// Runs `arrival` when the bytes come in, unless they are lost with the process.
void World::send_from_replica(Replica* replica, ClientId to, std::function<void()> arrival) {
  Replica::Link& link = replica->links[to];
  const std::uint64_t number = ++link.sent;
  link.out_free = std::max(link.out_free, queue_.now() + delay());
  queue_.at(link.out_free, [this, replica, to, number, arrival = std::move(arrival)] {
    if (number > replica->links[to].surviving) return;
    replica->links[to].arrived = number;
    if (to != Replica::parent && !find_front_end(to)->alive) return;
    arrival();
    pump();
  });
}

std::vector<Replica*> World::members(std::uint64_t world) {
  std::vector<Replica*> found;
  for (const auto& replica : replicas_) {
    if (replica->world() == world) found.push_back(replica.get());
  }
  return found;
}

// Those that step together wait for each other in every step.
bool World::may_step(const Replica& replica) {
  if (!shape_.together) return replica.has_work();
  if (replica.wave == 0 || !replica.has_work()) return false;
  const std::vector<Replica*> all = members(replica.world());
  return static_cast<int>(all.size()) == coordinator_.replicas() &&
         std::all_of(all.begin(), all.end(), [](auto* other) { return other->state == Replica::State::running; });
}

void World::step_if_idle(Replica* replica) {
  if (replica->state != Replica::State::running || replica->stepping || !may_step(*replica)) return;
  replica->take_in();
  for (const RequestId request : replica->take_fresh()) {
    if (clients_.job(request).poison && replica->requests().contains(request)) return crash(replica);
  }
  replica->stepping = true;
  const auto events = std::make_shared<std::vector<TokenEvent>>(replica->step());
  const Nanoseconds duration = shape_.step_time / 2 + random_.exponential(static_cast<double>(shape_.step_time) / 2);
  queue_.after(duration, [this, replica, events] { step_done(replica, std::move(*events)); });
}

void World::step_done(Replica* replica, std::vector<TokenEvent> events) {
  replica->stepping = false;
  if (replica->state == Replica::State::stopped) {
    replica->held = [this, replica, events = std::move(events)] { report(replica, events); };
    return;
  }
  if (replica->state != Replica::State::running) return;
  report(replica, std::move(events));
  step_if_idle(replica);
}

// Events to whom they belong; loads, where they have changed, to everybody.
void World::report(Replica* replica, std::vector<TokenEvent> events) {
  std::map<ClientId, std::vector<TokenEvent>> by_client;
  for (TokenEvent& event : events) by_client[event.request.client].push_back(std::move(event));
  for (FrontEnd* const front_end : living_front_ends()) {
    const ClientId client = front_end->id;
    LoadReport& told = replica->links[client].told;
    const LoadReport load = replica->load(client);
    const bool same = told.waiting == load.waiting && told.running == load.running &&
                      told.messages_received == load.messages_received;
    if (same && !by_client.contains(client)) continue;
    told = load;
    const auto frame = std::make_shared<Frame>(Frame{replica->placement(), std::move(by_client[client]), load});
    send_from_replica(replica, client, [this, client, frame] { receive(client, frame); });
  }
  send_from_replica(replica, Replica::parent, [this, from = replica->placement(), work = replica->has_work()] {
    coordinator_.heartbeat(from, queue_.now());
    coordinator_.report(from, work);
  });
}

void World::receive(ClientId client, const std::shared_ptr<Frame>& frame) {
  FrontEnd* const front_end = find_front_end(client);
  const Placement from = frame->from;
  const auto accuse = [&](const Judgement& judgement) {
    if (judgement.verdict != Verdict::faulty) return false;
    violation(judgement.fault);
    coordinator_.fault(from, queue_.now());
    return true;
  };
  for (TokenEvent& event : frame->events) {
    const RequestId request = event.request;
    trace_.add(queue_.now(), from.rank, from.epoch, request.client, request.number, event.choice, event.position,
               event.token.value_or(-1), event.finish);
    const Judgement judgement = front_end->dispatcher.on_event(from, std::move(event));
    if (accuse(judgement)) return;
    if (judgement.verdict == Verdict::dropped) ++totals_.dropped;
    const auto died = front_end->died.find(from.rank);
    if (judgement.verdict == Verdict::accepted && died != front_end->died.end() && from.epoch <= died->second) {
      violation(
          fmt::format("request {}: rank {} epoch {} was listened to after its death", request, from.rank, from.epoch));
    }
    deliver(front_end);
  }
  accuse(front_end->dispatcher.on_report(from, frame->load));
}

void World::begin_wave(Placement placement, std::uint64_t wave) {
  ++totals_.waves;
  Replica* const replica = find(placement);
  Replica::Link& link = replica->links[Replica::parent];
  link.in_free = std::max(link.in_free, queue_.now() + delay());
  queue_.at(link.in_free, [this, replica, wave] {
    if (replica->state == Replica::State::dead) return;
    replica->wave = wave;
    for (Replica* const member : members(replica->world())) step_if_idle(member);
    if (replica->placement().rank == 0) {
      queue_.after(steps_between_votes * shape_.step_time,
                   [this, world = replica->world(), wave] { vote(world, wave); });
    }
  });
}

// Every so many steps they ask each other; when none has work the wave ends on all of them.
void World::vote(std::uint64_t world, std::uint64_t wave) {
  const std::vector<Replica*> all = members(world);
  const auto is = [&](auto condition) { return std::any_of(all.begin(), all.end(), condition); };
  if (is([](Replica* replica) { return replica->state == Replica::State::dead; })) return;
  const bool goes_on = is([&](Replica* replica) {
    return replica->state == Replica::State::stopped || replica->wave != wave || replica->stepping ||
           replica->has_work();
  });
  if (goes_on) {
    for (Replica* const replica : all) step_if_idle(replica);
    queue_.after(steps_between_votes * shape_.step_time, [this, world, wave] { vote(world, wave); });
    return;
  }
  for (Replica* const replica : all) {
    replica->wave = 0;
    send_from_replica(replica, Replica::parent, [this, from = replica->placement(), wave] {
      if (!coordinator_.wave_ended(from, wave))
        violation(fmt::format("wave {} of rank {} is unknown", wave, from.rank));
    });
  }
}

}  // namespace chorus::sim
