#include "cluster/coordinator.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chorus {

Coordinator::Coordinator(const CoordinatorConfig& config) : config_(config), supervisor_(config.supervisor) {
  CHECK(!config.step_together || config.first_replica == 0, "a world without its first {} replicas",
        config.first_replica);
  for (int other = 0; other < config.first_replica; ++other) supervisor_.add_absent();
  replicas_.resize(static_cast<std::size_t>(config.first_replica));
}

Result<int> Coordinator::add_replica(ReplicaOrigin origin, Nanoseconds now) {
  const auto was_ready = [](const Replica& replica) { return replica.was_ready; };
  if (config_.step_together && std::any_of(replicas_.begin(), replicas_.end(), was_ready)) {
    return fail(ErrorCode::invalid_argument,
                "{} replicas step together since their start: a further one needs a new start of them all",
                replicas_.size());
  }
  const int id = supervisor_.add(origin == ReplicaOrigin::spawned);
  replicas_.emplace_back().origin = origin;
  if (origin != ReplicaOrigin::joins) supervisor_.start(id, now);
  follow_supervisor(now);
  return id;
}

void Coordinator::drain(int replica, bool move, Nanoseconds now) {
  Replica& drained = at(replica);
  drained.draining = true;
  drained.move = move;
  if (lent(replica)) hold_loan();
  if (is_ready(replica)) tell_draining(replica, now);
  follow_supervisor(now);
}

void Coordinator::resume(int replica, Nanoseconds now) {
  Replica& drained = at(replica);
  if (!drained.draining || drained.removing) return;
  drained.draining = false;
  reopen(replica);
  follow_supervisor(now);
}

bool Coordinator::answers_present_draining(const ClientNote& note) const {
  const Replica& drained = replicas_.at(static_cast<std::size_t>(note.replica.rank));
  return note.number == drained.drainings || config_.planted == PlantedFault::take_any_answer;
}

// Unless there is another reason why it gets nothing.
void Coordinator::reopen(int replica) {
  if (!is_ready(replica) || lent(replica) || is_draining(replica)) return;
  at(replica).awaited.clear();
  at(replica).drain_deadline.reset();
  tell(replica, ReplicaNews::State::ready);
}

void Coordinator::pause(bool move, Nanoseconds now) {
  paused_ = true;
  pause_moves_ = move;
  hold_loan();
  for (int replica = 0; replica < replicas(); ++replica) {
    if (is_ready(replica)) tell_draining(replica, now);
  }
}

void Coordinator::resume_all(Nanoseconds now) {
  if (!std::exchange(paused_, false)) return;
  for (int replica = 0; replica < replicas(); ++replica) reopen(replica);
  follow_supervisor(now);
}

bool Coordinator::is_draining(int replica) const {
  return paused_ || replicas_.at(static_cast<std::size_t>(replica)).draining;
}

bool Coordinator::is_drained(int replica) const {
  return is_ready(replica) && is_draining(replica) && replicas_.at(static_cast<std::size_t>(replica)).awaited.empty();
}

// Its requests are taken away before it ends, so that no front end blames one of them.
Result<void> Coordinator::restart(int replica, Nanoseconds now) {
  if (at(replica).origin == ReplicaOrigin::connected) {
    return fail(ErrorCode::invalid_argument, "replica {} was started by a launcher, which alone can start it again",
                replica);
  }
  if (at(replica).removing) return fail(ErrorCode::invalid_argument, "replica {} is to be removed", replica);
  const int first = config_.step_together ? 0 : replica;
  const int last = config_.step_together ? replicas() : replica + 1;
  for (int member = first; member < last; ++member) {
    if (is_ready(member)) news_.push_back({placement(member), ReplicaNews::State::draining, true});
  }
  for (int member = first; member < last; ++member) supervisor_.restart(member, now);
  follow_supervisor(now);
  return {};
}

Result<void> Coordinator::remove(int replica, bool move, Nanoseconds now) {
  if (config_.step_together) {
    return fail(ErrorCode::invalid_argument,
                "replica {} steps together with the others: they need a new start to be fewer", replica);
  }
  at(replica).removing = true;
  drain(replica, move, now);
  if (!is_ready(replica)) supervisor_.remove(replica, now);
  follow_supervisor(now);
  return {};
}

void Coordinator::joined(int replica, Nanoseconds now) {
  at(replica).joined = true;
  const int first = config_.step_together ? 0 : replica;
  const int last = config_.step_together ? replicas() : replica + 1;
  for (int member = first; member < last; ++member) {
    const bool free = state(member) == ReplicaState::stopped || state(member) == ReplicaState::given_up;
    if (!at(member).joined || !free) return;
  }
  // Those that step together start together: one that waited for the others as a started one would be ended by the
  // start deadline again and again, and nobody would see that none is left.
  for (int member = first; member < last; ++member) {
    at(member).joined = false;
    supervisor_.start(member, now);
  }
  follow_supervisor(now);
}

void Coordinator::left(int replica) {
  at(replica).joined = false;
}

void Coordinator::will_not_return(int replica) {
  at(replica).returns = false;
}

std::vector<ReplicaNews> Coordinator::client_joined(ClientId client, RankRange serves) {
  clients_.emplace(client, serves);
  std::vector<ReplicaNews> present;
  for (int replica = 0; replica < replicas(); ++replica) {
    if (!is_ready(replica) || !serves.contains(replica)) continue;
    const bool drains = is_draining(replica) || lent(replica);
    present.push_back(drains ? draining_news(replica) : ReplicaNews{placement(replica), ReplicaNews::State::ready});
  }
  return present;
}

void Coordinator::client_left(ClientId client, Nanoseconds now) {
  if (config_.planted == PlantedFault::await_departed) return;
  clients_.erase(client);
  std::erase(borrowers_, client);
  if (loan_ && loan_->client == client) end_loan();
  for (int replica = 0; replica < replicas(); ++replica) {
    if (at(replica).awaited.erase(client) > 0) on_drained(replica, now);
  }
  follow_supervisor(now);
}

void Coordinator::on_note(ClientId client, const ClientNote& note, Nanoseconds now) {
  const bool of_loan = loan_ && loan_->granted && loan_->client == client && present(note.replica) &&
                       loan_->replicas.front() == note.replica.rank;
  switch (note.kind) {
    case ClientNote::Kind::drained:
      if (!present(note.replica) || !answers_present_draining(note)) break;
      if (at(note.replica.rank).awaited.erase(client) > 0) on_drained(note.replica.rank, now);
      break;
    case ClientNote::Kind::wants_alone:
      if (std::find(borrowers_.begin(), borrowers_.end(), client) == borrowers_.end()) borrowers_.push_back(client);
      break;
    case ClientNote::Kind::returned:
      if (of_loan) end_loan();
      break;
  }
  follow_supervisor(now);
}

void Coordinator::ready(Placement replica, Nanoseconds now) {
  if (!present(replica) || state(replica.rank) != ReplicaState::starting) return;
  supervisor_.ready(replica, now);
  Replica& known = at(replica.rank);
  known.was_ready = true;
  tell(replica.rank, ReplicaNews::State::ready);
  if (is_draining(replica.rank)) tell_draining(replica.rank, now);
  follow_supervisor(now);
  begin_waves();
}

void Coordinator::heartbeat(Placement replica, Nanoseconds now) {
  supervisor_.heartbeat(replica, now);
}

void Coordinator::exited(Placement replica, ExitStatus status, Nanoseconds now) {
  supervisor_.exited(replica, status, now);
  follow_supervisor(now);
}

void Coordinator::fault(Placement replica, Nanoseconds now) {
  supervisor_.fault(replica, now);
  follow_supervisor(now);
}

void Coordinator::report(Placement replica, bool has_work) {
  if (!works(replica)) return;
  at(replica.rank).has_work = has_work;
  begin_waves();
}

// One that is dead, and whose process is not gone yet, may still have said so.
bool Coordinator::wave_ended(Placement replica, std::uint64_t wave) {
  if (!works(replica)) return true;
  Replica& member = at(replica.rank);
  if (member.wave == 0 || member.wave != wave) return false;
  member.wave = 0;
  member.has_work = false;  // what it reported before; what it still gets it reports after
  begin_waves();
  return true;
}

// A wave ends when none of them had work; what reached one of them too late for it starts the next.
void Coordinator::begin_waves() {
  if (!config_.step_together) return;
  bool work = false;
  for (int replica = 0; replica < replicas(); ++replica) {
    if (!is_ready(replica) || at(replica).wave != 0) return;
    work = work || at(replica).has_work;
  }
  if (!work || (config_.planted == PlantedFault::forget_waves && wave_ > 0)) return;
  ++wave_;
  for (int replica = 0; replica < replicas(); ++replica) {
    at(replica).wave = wave_;
    actions_.push_back({CoordinatorAction::Kind::begin_wave, placement(replica), wave_});
  }
}

void Coordinator::tick(Nanoseconds now) {
  supervisor_.tick(now);
  for (int replica = 0; replica < replicas(); ++replica) {
    const auto deadline = at(replica).drain_deadline;
    if (!deadline || now < *deadline) continue;
    at(replica).awaited.clear();
    on_drained(replica, now);
  }
  follow_supervisor(now);
}

std::optional<Nanoseconds> Coordinator::next_deadline() const {
  std::optional<Nanoseconds> next = supervisor_.next_deadline();
  for (const Replica& replica : replicas_) {
    if (replica.drain_deadline) next = std::min(next.value_or(*replica.drain_deadline), *replica.drain_deadline);
  }
  if (nobody_since_) {
    const Nanoseconds over = *nobody_since_ + config_.rejoin_timeout;
    next = std::min(next.value_or(over), over);
  }
  return next;
}

std::vector<ReplicaNews> Coordinator::take_news() {
  return std::exchange(news_, {});
}

std::vector<CoordinatorAction> Coordinator::take_actions() {
  return std::exchange(actions_, {});
}

bool Coordinator::may_return(int replica) const {
  const Replica& known = replicas_.at(static_cast<std::size_t>(replica));
  return known.origin == ReplicaOrigin::joins && known.returns && state(replica) != ReplicaState::removed;
}

// Of ranks that step together none goes on without the others.
bool Coordinator::is_over(Nanoseconds now) const {
  if (!supervisor_.all_given_up()) return false;
  int returning = 0;
  for (int replica = 0; replica < replicas(); ++replica) returning += may_return(replica) ? 1 : 0;
  if (returning == 0 || (config_.step_together && returning < replicas())) return true;
  return nobody_since_ && now - *nobody_since_ >= config_.rejoin_timeout;
}

// After every input: what the supervisor wants, which may lead to more that it wants, and what follows from it.
void Coordinator::follow_supervisor(Nanoseconds now) {
  for (auto actions = supervisor_.take_actions(); !actions.empty(); actions = supervisor_.take_actions()) {
    for (const SupervisorAction& action : actions) {
      Replica& replica = at(action.replica.rank);
      switch (action.kind) {
        case SupervisorAction::Kind::spawn:
          // One that is there already is in a world of its launcher's.
          replica.world = config_.step_together && replica.origin != ReplicaOrigin::connected ? world_ : 0;
          replica.because_of = -1;
          actions_.push_back({CoordinatorAction::Kind::spawn, action.replica, replica.world});
          break;
        case SupervisorAction::Kind::kill:
          actions_.push_back({CoordinatorAction::Kind::kill, action.replica});
          break;
        case SupervisorAction::Kind::died:
          on_death(action.replica.rank, now);
          break;
        case SupervisorAction::Kind::give_up:
          on_end(action.replica.rank, now);
          break;
      }
    }
  }
  lend(now);
  if (!supervisor_.all_given_up() || replicas_.empty()) {
    nobody_since_.reset();
  } else if (!nobody_since_ && !is_over(now)) {
    nobody_since_ = now;
  }
}

void Coordinator::on_death(int replica, Nanoseconds now) {
  Replica& dead = at(replica);
  dead.wave = 0;
  dead.has_work = false;
  dead.awaited.clear();
  dead.drain_deadline.reset();
  tell(replica, ReplicaNews::State::died);
  if (dead.removing) supervisor_.remove(replica, now);
  if (dead.world == world_ && config_.planted != PlantedFault::keep_world) end_world(replica, now);
  if (lent(replica)) end_loan();
}

// The first death in a world: the others cannot go on without it.
void Coordinator::end_world(int replica, Nanoseconds now) {
  const std::uint64_t ended = world_++;
  wave_ = 0;
  for (int other = 0; other < replicas(); ++other) {
    if (other == replica || at(other).world != ended) continue;
    at(other).because_of = replica;
    supervisor_.fault(placement(other), now);
  }
}

void Coordinator::on_end(int replica, Nanoseconds now) {
  actions_.push_back({CoordinatorAction::Kind::give_up, placement(replica), 0, at(replica).because_of});
  if (state(replica) == ReplicaState::removed) return tell(replica, ReplicaNews::State::removed);
  if (!config_.step_together || may_return(replica) || config_.planted == PlantedFault::keep_peers) return;
  for (int other = 0; other < replicas(); ++other) {
    if (other == replica || state(other) == ReplicaState::given_up) continue;
    if (at(other).because_of < 0) at(other).because_of = replica;
    supervisor_.give_up(other, now);
  }
}

bool Coordinator::lent(int replica) const {
  return loan_ && std::find(loan_->replicas.begin(), loan_->replicas.end(), replica) != loan_->replicas.end();
}

ReplicaNews Coordinator::draining_news(int replica) const {
  const Replica& known = replicas_[static_cast<std::size_t>(replica)];
  const bool move = lent(replica) || (known.draining && known.move) || (paused_ && pause_moves_);
  ReplicaNews news{placement(replica), ReplicaNews::State::draining, move};
  news.number = known.drainings;
  return news;
}

void Coordinator::tell_draining(int replica, Nanoseconds now) {
  Replica& drained = at(replica);
  ++drained.drainings;
  news_.push_back(draining_news(replica));
  drained.awaited.clear();
  for (const auto& [client, serves] : clients_) {
    if (serves.contains(replica)) drained.awaited.insert(client);
  }
  drained.drain_deadline = now + config_.drain_timeout;
  if (drained.awaited.empty()) on_drained(replica, now);
}

// One front end less has something there.
void Coordinator::on_drained(int replica, Nanoseconds now) {
  Replica& drained = at(replica);
  if (!drained.awaited.empty()) return;
  drained.drain_deadline.reset();
  if (drained.removing) {
    // Whoever was not waited for takes away what it has there before it counts as a death.
    news_.push_back({placement(replica), ReplicaNews::State::draining, true});
    supervisor_.remove(replica, now);
    return;
  }
  if (!lent(replica) || loan_->granted) return;
  const auto waits = [&](int other) { return !at(other).awaited.empty(); };
  if (std::any_of(loan_->replicas.begin(), loan_->replicas.end(), waits)) return;
  loan_->granted = true;
  ReplicaNews news{placement(loan_->replicas.front()), ReplicaNews::State::lent};
  news.client = loan_->client;
  news_.push_back(news);
}

// The first that it can use.
std::optional<int> Coordinator::replica_for(ClientId borrower) const {
  const auto known = clients_.find(borrower);
  const RankRange serves = known == clients_.end() ? RankRange() : known->second;
  for (int replica = 0; replica < replicas(); ++replica) {
    if (is_ready(replica) && !is_draining(replica) && serves.contains(replica)) return replica;
  }
  return std::nullopt;
}

// Of a world all of it: a death there is everybody's. The first is the one that is used.
void Coordinator::lend(Nanoseconds now) {
  if (loan_ || borrowers_.empty()) return;
  for (int replica = 0; replica < replicas() && config_.step_together; ++replica) {
    if (!is_ready(replica)) return;
  }
  const auto served = [this](ClientId borrower) { return replica_for(borrower).has_value(); };
  const auto borrower = std::find_if(borrowers_.begin(), borrowers_.end(), served);
  if (borrower == borrowers_.end()) return;
  const int first = *replica_for(*borrower);
  std::vector<int> replicas_to_lend = {first};
  for (int replica = 0; replica < replicas() && config_.step_together; ++replica) {
    if (replica != first) replicas_to_lend.push_back(replica);
  }
  loan_ = Loan{*borrower, replicas_to_lend, false};
  borrowers_.erase(borrower);
  for (const int replica : replicas_to_lend) tell_draining(replica, now);
}

// What an operator asks for goes before a loan that has not begun; one that has ends when its client hears of it.
void Coordinator::hold_loan() {
  if (loan_ && !loan_->granted) end_loan();
}

void Coordinator::end_loan() {
  const Loan ended = *std::exchange(loan_, std::nullopt);
  // It has not come to use it.
  if (!ended.granted && clients_.contains(ended.client)) borrowers_.push_front(ended.client);
  for (const int replica : ended.replicas) {
    if (!is_ready(replica)) continue;
    if (is_draining(replica)) {
      news_.push_back(draining_news(replica));
    } else {
      reopen(replica);
    }
  }
}

void Coordinator::tell(int replica, ReplicaNews::State state) {
  ReplicaNews news{placement(replica), state};
  if (state == ReplicaNews::State::died) news.because_of = at(replica).because_of;
  news_.push_back(news);
}

}  // namespace chorus
