#include <algorithm>

#include "base/log.h"
#include "fleet/fleet_impl.h"

namespace chorus {

// Carries news, actions and notes between the two who decide, until they want nothing more. An action may bring the
// next one about (a process that cannot be started has died).
void FleetImpl::act() {
  for (bool busy = true; busy;) {
    busy = false;
    for (const ReplicaNews& news : coordinator_.take_news()) {
      busy = true;
      if (news.state == ReplicaNews::State::died) {
        bury(news);
      } else {
        dispatcher_.on_news(news);
      }
    }
    for (const CoordinatorAction& action : coordinator_.take_actions()) {
      busy = true;
      act(action);
    }
    for (const ClientNote& note : dispatcher_.take_notes()) {
      busy = true;
      coordinator_.on_note(client_, note, monotonic_now());
    }
  }
  send_messages();
}

void FleetImpl::act(const CoordinatorAction& action) {
  switch (action.kind) {
    case CoordinatorAction::Kind::spawn:
      return spawn(action);
    case CoordinatorAction::Kind::kill:
      return kill(action.replica);
    case CoordinatorAction::Kind::give_up:
      return log_end(action);
    case CoordinatorAction::Kind::begin_wave:
      if (auto& to = link(action.replica.rank); to && to->replica() == action.replica)
        to->post(MessageType::wave, encode(WaveMessage{action.number}));
      return;
  }
}

void FleetImpl::log_end(const CoordinatorAction& action) const {
  const int rank = action.replica.rank;
  if (is_remote(rank)) {
    log(LogLevel::info, "Worker rank {} is waited for: its node may bring it back", rank);
  } else if (action.because_of >= 0) {
    log(LogLevel::error, "Worker rank {} is given up with worker rank {}, which it steps together with", rank,
        action.because_of);
  } else {
    log(LogLevel::error, "Worker rank {} is given up after {} restarts", rank, coordinator_.restarts(rank));
  }
}

// A new process, or the engine that is there already.
Result<ReplicaLink> FleetImpl::begin_link(Placement replica) {
  if (is_remote(replica.rank)) {
    auto adopted = ReplicaLink::adopt(replica, std::move(joined(replica.rank, 0)));
    adopted.post(MessageType::welcome, encode(welcome_of(replica)));
    begin_followers(replica);
    return adopted;
  }
  auto& connection = connected_[static_cast<std::size_t>(replica.rank)];
  if (!connection) return ReplicaLink::start(replica);
  return ReplicaLink::adopt(replica, std::move(connection));
}

void FleetImpl::spawn(const CoordinatorAction& action) {
  const Placement replica = action.replica;
  auto started = start_in_world(action);
  if (!started.ok()) {
    last_deaths_[static_cast<std::size_t>(replica.rank)] = {started.error().code,
                                                            fmt::format("did not start ({})", started.error().message)};
    coordinator_.exited(replica, ExitStatus{1, 0}, monotonic_now());
    return;
  }
  link(replica.rank) = std::move(*started);
}

Result<ReplicaLink> FleetImpl::start_in_world(const CoordinatorAction& action) {
  if (action.number > 0 && action.number != world_number_) {
    world_.reset();
    world_number_ = action.number;
  }
  if (action.number > 0 && !is_remote(action.replica.rank) && !world_) {
    CHORUS_TRY(world_, SharedWorld::create(config_.parallel.world_size()));
  }
  worlds_of_[static_cast<std::size_t>(action.replica.rank)] = action.number;
  return begin_link(action.replica);
}

// The epoch is dead for everybody. Its process may still be there.
void FleetImpl::bury(const ReplicaNews& news) {
  const Placement replica = news.replica;
  Death& death = last_deaths_[static_cast<std::size_t>(replica.rank)];
  auto& dead = link(replica.rank);
  int pid = 0;
  if (dead && dead->replica() == replica) {
    death = death_of(*dead, news.because_of);
    pid = dead->pid();
    dead->disconnect();
  }
  // A node may bring its rank again until the start deadline, if another try can work.
  const bool for_good = !is_remote(replica.rank) || death.code == ErrorCode::invalid_argument;
  if (!was_ready_[static_cast<std::size_t>(replica.rank)] && for_good) start_failed_ = true;
  // Their nodes end these workers and bring new ones.
  followers(replica.rank).clear();
  const auto size = static_cast<std::size_t>(config_.parallel.replica_size());
  for (std::size_t i = 0; i < size && !contacts_.empty(); ++i) {
    contacts_[static_cast<std::size_t>(replica.rank) * size + i].clear();
  }
  const std::uint32_t requests = dispatcher_.ledger().requests_on(replica.rank);
  dispatcher_.on_news(news, death.words);
  if (requests == 0) {
    log(LogLevel::warning, "Worker rank {} (pid {}) {}; it held no requests", replica.rank, pid, death.words);
  } else {
    const char* fate =
        ranks_that([&](int rank) { return is_ready(rank); }).empty() ? "wait for a restart" : "go to the others";
    log(LogLevel::warning, "Worker rank {} (pid {}) {}: its {} requests {}", replica.rank, pid, death.words, requests,
        fate);
  }
}

// It is dead for the Dispatcher only afterwards.
FleetImpl::Death FleetImpl::death_of(const ReplicaLink& link, int because_of) const {
  if (link.last_words) return {link.last_words->code, fmt::format("{}: {}", link.reason, link.last_words->message)};
  if (!link.reason.empty()) return {ErrorCode::unavailable, link.reason};
  if (because_of >= 0) {
    return {ErrorCode::unavailable,
            fmt::format("was ended (worker rank {}, which it steps together with, died)", because_of)};
  }
  if (dispatcher_.is_ready(link.replica())) {
    return {ErrorCode::unavailable,
            fmt::format("gave no sign of life for {} ms", limits_.heartbeat_timeout / 1'000'000)};
  }
  return {ErrorCode::deadline_exceeded, fmt::format("was not ready within {} ms", limits_.start_timeout / 1'000'000)};
}

void FleetImpl::kill(Placement replica) {
  auto& doomed = link(replica.rank);
  if (!doomed || doomed->replica() != replica) return;
  if (!doomed->adopted()) return doomed->process().kill();
  // Its process is another's: that this side will not listen again is all there is to its end.
  doomed.reset();
  coordinator_.exited(replica, ExitStatus{1, 0}, monotonic_now());
}

// If the process has ended (or does within timeout_ms): takes what it still said, then tells the supervisor.
void FleetImpl::check_exit(int rank, int timeout_ms) {
  auto& ended = link(rank);
  if (!ended) return;
  const std::optional<ExitStatus> status = ended->process().reap(timeout_ms);
  if (!status) return;
  const Placement replica = ended->replica();
  for (auto frame = ended->receive(); frame.ok() && frame->has_value(); frame = ended->receive()) {
    if (!handle(*ended, **frame).ok()) break;
  }
  ended->reason = describe(*status);
  coordinator_.exited(replica, *status, monotonic_now());
  act();
  if (ended && ended->replica() == replica) ended.reset();
}

// `link` may be gone afterwards.
void FleetImpl::fault(ReplicaLink& link, const std::string& reason) {
  link.reason = fmt::format("was ended ({})", reason);
  coordinator_.fault(link.replica(), monotonic_now());
  act();
}

Error FleetImpl::start_error() const {
  return with_deaths(fail(ErrorCode::unavailable, "the replicas did not start"), true);
}

Error FleetImpl::all_dead() const {
  return with_deaths(fail(ErrorCode::unavailable, "no replica could be kept alive"), false);
}

// What cannot be sent to a living engine would be waited for for ever: the engine counts as broken.
void FleetImpl::check_sending() {
  for (int rank = 0; rank < ranks_; ++rank) {
    const auto& to = link(rank);
    if (to && to->connected() && to->send_error()) fault(*link(rank), to->send_error()->message);
  }
}

// What the rank shows of its progress. Of replicas that step together each waits in every layer for the slowest: the
// longest step that one of them expects counts for all.
ProgressSample FleetImpl::progress_of(int rank) const {
  const auto sample_of = [&](int one) {
    const auto& shown = links_[static_cast<std::size_t>(one)];
    return shown ? shown->progress_memory().progress().sample() : ProgressSample();
  };
  ProgressSample sample = sample_of(rank);
  for (int other = 0; other < ranks_ && config_.parallel.replicas_step_together(); ++other) {
    const Nanoseconds expected = sample_of(other).expected_step_time;
    // Unknown of one is unknown.
    sample.expected_step_time = expected == 0 ? 0 : std::max(sample.expected_step_time, expected);
    if (expected == 0) break;
  }
  return sample;
}

// It has something to do, as far as is known here: its progress is looked at.
bool FleetImpl::works(int rank) const {
  const auto& watched = links_[static_cast<std::size_t>(rank)];
  if (!watched || !is_ready(rank) || !watched->progress_memory().progress().watched()) return false;
  return watched->progress_memory().progress().sample().busy || dispatcher_.ledger().requests_on(rank) > 0;
}

void FleetImpl::watch_progress() {
  for (int rank = 0; rank < ranks_; ++rank) {
    if (!link(rank) || !is_ready(rank) || !link(rank)->progress_memory().progress().watched()) continue;
    const auto hung_for = link(rank)->hang_watch.look(progress_of(rank), monotonic_now());
    if (hung_for) fault(*link(rank), fmt::format("hung: no layer finished for {} ms", *hung_for / 1'000'000));
  }
}

// The error, with how each rank died last (of those alone that never were READY) and the code of the last of these.
Error FleetImpl::with_deaths(Error error, bool before_ready_only) const {
  const char* separator = ": ";
  for (int rank = 0; rank < ranks_; ++rank) {
    const Death& death = last_deaths_[static_cast<std::size_t>(rank)];
    if (death.words.empty() || (before_ready_only && was_ready_[static_cast<std::size_t>(rank)])) continue;
    error.code = death.code;
    error.message += fmt::format("{}worker rank {} {}", separator, rank, death.words);
    separator = "; ";
  }
  return error;
}

}  // namespace chorus
