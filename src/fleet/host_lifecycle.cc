// Incarnations that begin and end.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/host.h"

namespace chorus {

void FleetHost::act() {
  while (carry_out()) {
  }
  send_messages();
}

// News, actions and notes, once: an action may bring the next one about (a process that cannot be started has died).
// False: nobody wanted anything.
bool FleetHost::carry_out() {
  bool busy = false;
  for (const ReplicaNews& news : coordinator_.take_news()) {
    busy = true;
    if (news.state == ReplicaNews::State::died) {
      bury(news);
    } else if (client_ != nullptr) {
      client_->on_news(news);
    }
    for (const auto& client : clients_) client->tell(news, at(news.replica.rank).last_death.words);
  }
  for (const CoordinatorAction& action : coordinator_.take_actions()) {
    busy = true;
    act(action);
  }
  if (client_ == nullptr) return busy;
  for (const ClientNote& note : client_->dispatcher().take_notes()) {
    busy = true;
    coordinator_.on_note(client_->id(), note, monotonic_now());
  }
  return busy;
}

void FleetHost::act(const CoordinatorAction& action) {
  switch (action.kind) {
    case CoordinatorAction::Kind::spawn:
      return begin(action);
    case CoordinatorAction::Kind::kill:
      return kill(action.replica);
    case CoordinatorAction::Kind::give_up:
      return log_end(action);
    case CoordinatorAction::Kind::begin_wave:
      if (auto& to = at(action.replica.rank).link; to && to->replica() == action.replica)
        to->post(MessageType::wave, encode(WaveMessage{action.number}));
      return;
  }
}

void FleetHost::log_end(const CoordinatorAction& action) const {
  const int rank = action.replica.rank;
  if (at(rank).removed) {
    log(LogLevel::info, "Worker rank {} is removed", rank);
  } else if (at(rank).source->origin() == ReplicaOrigin::joins) {
    log(LogLevel::info, "Worker rank {} is waited for: its node may bring it back", rank);
  } else if (action.because_of >= 0) {
    log(LogLevel::error, "Worker rank {} is given up with worker rank {}, which it steps together with", rank,
        action.because_of);
  } else {
    log(LogLevel::error, "Worker rank {} is given up after {} restarts", rank, coordinator_.restarts(rank));
  }
}

void FleetHost::begin(const CoordinatorAction& action) {
  const Placement replica = action.replica;
  auto begun = at(replica.rank).source->begin(replica, action.number);
  if (!begun.ok()) {
    at(replica.rank).last_death = {begun.error().code, fmt::format("did not start ({})", begun.error().message)};
    coordinator_.exited(replica, ExitStatus{1, 0}, monotonic_now());
    return;
  }
  at(replica.rank).link = std::move(*begun);
  at(replica.rank).restarting = false;
}

// The epoch is dead for everybody. Its process may still be there.
void FleetHost::bury(const ReplicaNews& news) {
  const Placement replica = news.replica;
  Rank& rank = at(replica.rank);
  const bool wanted = rank.removed || rank.restarting;
  if (!wanted) ++rank.deaths;
  int pid = 0;
  if (rank.link && rank.link->replica() == replica) {
    rank.last_death = death_of(*rank.link, news.because_of);
    pid = rank.link->pid();
    rank.link->disconnect();
  }
  // A node may bring its rank again until the start deadline, if another try can work.
  const bool for_good =
      rank.source->origin() != ReplicaOrigin::joins || rank.last_death.code == ErrorCode::invalid_argument;
  if (!rank.was_ready && for_good) start_failed_ = true;
  rank.source->ended(replica);
  const LogLevel level = wanted ? LogLevel::info : LogLevel::warning;
  const std::uint32_t requests = requests_on(replica.rank);
  if (client_ != nullptr) client_->on_news(news, rank.last_death.words);
  if (client_ == nullptr) {
    log(level, "Worker rank {} (pid {}) {}: what it had {}", replica.rank, pid, rank.last_death.words,
        any_ready() ? "goes to the others" : "waits for a restart");
  } else if (requests == 0) {
    log(level, "Worker rank {} (pid {}) {}; it held no requests", replica.rank, pid, rank.last_death.words);
  } else {
    log(level, "Worker rank {} (pid {}) {}: its {} requests {}", replica.rank, pid, rank.last_death.words, requests,
        any_ready() ? "go to the others" : "wait for a restart");
  }
}

void FleetHost::kill(Placement replica) {
  auto& doomed = at(replica.rank).link;
  if (!doomed || doomed->replica() != replica) return;
  if (!doomed->adopted()) return doomed->process().kill();
  // Its process is another's: that this side will not listen again is all there is to its end.
  doomed.reset();
  coordinator_.exited(replica, ExitStatus{1, 0}, monotonic_now());
}

void FleetHost::hear_sources() {
  for (const auto& source : sources_) {
    for (const SourceEvent& event : source->advance(monotonic_now())) hear(event);
  }
  act();
}

void FleetHost::hear(const SourceEvent& event) {
  Rank& rank = at(event.rank);
  switch (event.kind) {
    case SourceEvent::Kind::joined:
      return coordinator_.joined(event.rank, monotonic_now());
    case SourceEvent::Kind::left:
      return coordinator_.left(event.rank);
    case SourceEvent::Kind::broken:
      if (!rank.link) return;
      rank.link->last_words = event.last_words;
      if (!event.last_words) return fault(*rank.link, event.reason);
      rank.link->reason = event.reason;
      coordinator_.fault(rank.link->replica(), monotonic_now());
      return act();
    case SourceEvent::Kind::will_not_return:
      coordinator_.will_not_return(event.rank);
      if (event.reason.empty()) return;
      rank.last_death = {ErrorCode::unavailable, event.reason};
      if (!rank.was_ready) start_failed_ = true;
      return;
  }
}

}  // namespace chorus
