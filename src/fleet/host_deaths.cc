// How the end of an incarnation is noticed, and what is said of it.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/host.h"

namespace chorus {

FleetHost::Death FleetHost::death_of(const ReplicaLink& link, int because_of) const {
  if (link.last_words) return {link.last_words->code, fmt::format("{}: {}", link.reason, link.last_words->message)};
  if (!link.reason.empty()) return {ErrorCode::unavailable, link.reason};
  if (at(link.replica().rank).restarting) return {ErrorCode::unavailable, "was ended (it is to start anew)"};
  if (at(link.replica().rank).removed) return {ErrorCode::unavailable, "was ended (it is to be removed)"};
  if (because_of >= 0) {
    return {ErrorCode::unavailable,
            fmt::format("was ended (worker rank {}, which it steps together with, died)", because_of)};
  }
  if (link.was_ready) {
    return {ErrorCode::unavailable,
            fmt::format("gave no sign of life for {} ms", limits_.heartbeat_timeout / 1'000'000)};
  }
  return {ErrorCode::deadline_exceeded, fmt::format("was not ready within {} ms", limits_.start_timeout / 1'000'000)};
}

// If the process has ended: takes what it still said, then tells the Coordinator.
void FleetHost::check_exit(int rank) {
  auto& ended = at(rank).link;
  if (!ended) return;
  const std::optional<ExitStatus> status = ended->process().reap(0);
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
void FleetHost::fault(ReplicaLink& link, const std::string& reason) {
  link.reason = fmt::format("was ended ({})", reason);
  coordinator_.fault(link.replica(), monotonic_now());
  act();
}

void FleetHost::check_closed() {
  for (Rank& rank : ranks_) {
    if (!rank.link || !rank.link->closed || monotonic_now() < rank.link->closed->exits_until) continue;
    const std::string why = std::exchange(rank.link->closed, std::nullopt)->why;
    fault(*rank.link, why);
  }
}

// What cannot be sent to a living engine would be waited for for ever: the engine counts as broken.
void FleetHost::check_sending() {
  for (Rank& rank : ranks_) {
    if (rank.link && rank.link->connected() && rank.link->send_error())
      fault(*rank.link, rank.link->send_error()->message);
  }
}

// What the rank shows of its progress. Of replicas that step together each waits in every layer for the slowest: the
// longest step that one of them expects counts for all.
ProgressSample FleetHost::progress_of(int rank) const {
  const auto sample_of = [](const Rank& one) {
    return one.link ? one.link->progress_memory().progress().sample() : ProgressSample();
  };
  ProgressSample sample = sample_of(at(rank));
  if (!config_.parallel.replicas_step_together()) return sample;
  for (const Rank& other : ranks_) {
    const Nanoseconds expected = sample_of(other).expected_step_time;
    // Unknown of one is unknown.
    sample.expected_step_time = expected == 0 ? 0 : std::max(sample.expected_step_time, expected);
    if (expected == 0) break;
  }
  return sample;
}

// It has something to do, as far as is known here: its progress is looked at.
bool FleetHost::works(int rank) const {
  const auto& watched = at(rank).link;
  if (!watched || !is_ready(rank) || !watched->progress_memory().progress().watched()) return false;
  return watched->progress_memory().progress().sample().busy || requests_on(rank) > 0;
}

void FleetHost::watch_progress() {
  for (int rank = 0; rank < ranks(); ++rank) {
    auto& link = at(rank).link;
    if (!link || !is_ready(rank) || !link->progress_memory().progress().watched()) continue;
    const auto hung_for = link->hang_watch.look(progress_of(rank), monotonic_now());
    if (hung_for) fault(*link, fmt::format("hung: no layer finished for {} ms", *hung_for / 1'000'000));
  }
}

Error FleetHost::start_error() const {
  return with_deaths(fail(ErrorCode::unavailable, "the replicas did not start"), true);
}

Error FleetHost::all_dead() const {
  return with_deaths(fail(ErrorCode::unavailable, "no replica could be kept alive"), false);
}

// The error, with how each rank died last (of those alone that never were READY) and the code of the last of these.
Error FleetHost::with_deaths(Error error, bool before_ready_only) const {
  const char* separator = ": ";
  for (int rank = 0; rank < ranks(); ++rank) {
    const Death& death = at(rank).last_death;
    if (death.words.empty() || (before_ready_only && at(rank).was_ready)) continue;
    error.code = death.code;
    error.message += fmt::format("{}worker rank {} {}", separator, rank, death.words);
    separator = "; ";
  }
  return error;
}

// A node that has lost its engine or its way brings it back within the time a start may take.
void FleetHost::log_waiting_for_nodes() {
  if (std::exchange(waits_for_nodes_, coordinator_.waits_for_nodes()) || !waits_for_nodes_) return;
  log(LogLevel::warning, "No replica is left; waiting {} ms for a node to come back",
      limits_.start_timeout / 1'000'000);
}

}  // namespace chorus
