#include <algorithm>

#include "base/log.h"
#include "fleet/fleet_impl.h"

namespace chorus {

void FleetImpl::act_on_supervisor() {
  // An action may bring the next one about (a process that cannot be started has died).
  for (auto actions = supervisor_.take_actions(); !actions.empty(); actions = supervisor_.take_actions()) {
    for (const SupervisorAction& action : actions) {
      switch (action.kind) {
        case SupervisorAction::Kind::spawn:
          spawn(action.replica);
          break;
        case SupervisorAction::Kind::died:
          bury(action.replica);
          break;
        case SupervisorAction::Kind::kill:
          kill(action.replica);
          break;
        case SupervisorAction::Kind::give_up:
          if (is_remote(action.replica.rank)) {
            log(LogLevel::info, "Worker rank {} is waited for: its node may bring it back", action.replica.rank);
            break;
          }
          log(LogLevel::error, "Worker rank {} is given up after {} restarts", action.replica.rank,
              supervisor_.restarts(action.replica.rank));
          break;
      }
    }
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

void FleetImpl::spawn(Placement replica) {
  auto started = start_in_world(replica);
  if (!started.ok()) {
    last_deaths_[static_cast<std::size_t>(replica.rank)] = {started.error().code,
                                                            fmt::format("did not start ({})", started.error().message)};
    supervisor_.exited(replica, ExitStatus{1, 0}, monotonic_now());
    return;
  }
  link(replica.rank) = std::move(*started);
}

Result<ReplicaLink> FleetImpl::start_in_world(Placement replica) {
  const bool adopts = connected_[static_cast<std::size_t>(replica.rank)] != nullptr;  // it has its world already
  const bool shares_world = config_.parallel.replicas_step_together() && !adopts;
  if (shares_world && !is_remote(replica.rank) && !world_) {
    CHORUS_TRY(world_, SharedWorld::create(config_.parallel.world_size()));
  }
  worlds_of_[static_cast<std::size_t>(replica.rank)] = shares_world ? world_number_ : 0;
  return begin_link(replica);
}

// The epoch is dead for everybody. Its process may still be there.
void FleetImpl::bury(Placement replica) {
  Death& death = last_deaths_[static_cast<std::size_t>(replica.rank)];
  auto& dead = link(replica.rank);
  int pid = 0;
  if (dead && dead->replica() == replica) {
    death = death_of(*dead);
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
  const std::uint32_t requests = router_.ledger().requests_on(replica.rank);
  const bool takes_others_along = worlds_of_[static_cast<std::size_t>(replica.rank)] == world_number_;
  std::vector<TokenEvent> ends = router_.replica_died(replica);
  for (TokenEvent& end : ends) {
    end.error += fmt::format(" (the last: worker rank {} {})", replica.rank, death.words);
    log(LogLevel::error, "Choice {} is ended: {}", end.choice, end.error);
    events_.push_back({std::move(end), replica.rank});
  }
  if (requests == 0) {
    log(LogLevel::warning, "Worker rank {} (pid {}) {}; it held no requests", replica.rank, pid, death.words);
  } else {
    const char* fate = router_.ledger().unplaced() > 0 ? "wait for a restart" : "go to the others";
    log(LogLevel::warning, "Worker rank {} (pid {}) {}: its {} requests {}", replica.rank, pid, death.words, requests,
        fate);
  }
  if (takes_others_along) end_world_of(replica.rank);
}

// The first death in a world of replicas that step together: the others cannot go on without it.
void FleetImpl::end_world_of(int rank) {
  world_.reset();
  const std::uint64_t ended = world_number_++;
  wave_ = 0;
  wave_running_ = false;
  for (int other = 0; other < ranks_; ++other) {
    const bool in_it = other != rank && link(other) && worlds_of_[static_cast<std::size_t>(other)] == ended;
    if (in_it && link(other)->connected())
      fault(*link(other), fmt::format("worker rank {}, which it steps together with, died", rank));
  }
}

FleetImpl::Death FleetImpl::death_of(const ReplicaLink& link) const {
  if (link.last_words) return {link.last_words->code, fmt::format("{}: {}", link.reason, link.last_words->message)};
  if (!link.reason.empty()) return {ErrorCode::unavailable, link.reason};
  if (is_ready(link.replica().rank)) {
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
  supervisor_.exited(replica, ExitStatus{1, 0}, monotonic_now());
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
  supervisor_.exited(replica, *status, monotonic_now());
  act_on_supervisor();
  if (ended && ended->replica() == replica) ended.reset();
}

// `link` may be gone afterwards.
void FleetImpl::fault(ReplicaLink& link, const std::string& reason) {
  link.reason = fmt::format("was ended ({})", reason);
  supervisor_.fault(link.replica(), monotonic_now());
  act_on_supervisor();
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
  return watched->progress_memory().progress().sample().busy || router_.ledger().requests_on(rank) > 0;
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
