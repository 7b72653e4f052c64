#include "cluster/dispatcher.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

// Deaths in a row, with no token of the request in between: after so many it runs alone, after so many more it is the
// cause. Twice alone, because processes are killed from outside as well (a machine short of memory, an operator): once
// may be an accident.
constexpr std::uint32_t suspected_after_deaths = 2;
constexpr std::uint32_t convicted_after_deaths_alone = 2;
constexpr std::uint32_t convicted_after_deaths = suspected_after_deaths + convicted_after_deaths_alone;

RequestShape shape_of(const Request& request) {
  const std::size_t choices = request.choices.empty() ? request.params.n : request.choices.size();
  return {request.prompt.size(), request.params.max_tokens, static_cast<std::uint32_t>(choices), request.priority};
}

}  // namespace

Dispatcher::Dispatcher(const DispatcherConfig& config, std::unique_ptr<LoadBalancer> balancer)
    : config_(config), ledger_(config.planted), balancer_(std::move(balancer)) {
  if (balancer_->looks_at_prefixes()) prefixes_.emplace(config.prefix_key, config.block_size);
}

Result<void> Dispatcher::check(const Request& request) const {
  const DispatcherLimits& limits = config_.limits;
  const std::size_t tokens = request.prompt.size();
  if (tokens > limits.prompt_tokens_max) {
    return fail(ErrorCode::invalid_argument, "a prompt of {} tokens, at most {} can be sent to an engine", tokens,
                limits.prompt_tokens_max);
  }
  if (config_.planted == PlantedFault::unbounded_waiting || waiting() == 0) return {};
  if (waiting() >= limits.requests_waiting_max) {
    return fail(ErrorCode::resource_exhausted,
                "{} requests wait for a replica, the limit (requests_waiting_max {}): try again when some have ended",
                waiting(), limits.requests_waiting_max);
  }
  if (waiting_.tokens() + tokens > limits.tokens_waiting_max) {
    return fail(ErrorCode::resource_exhausted,
                "the prompts that wait for a replica have {} tokens, and {} more are over the limit "
                "(tokens_waiting_max {}): try again when some have ended",
                waiting_.tokens(), tokens, limits.tokens_waiting_max);
  }
  return {};
}

Result<RequestId> Dispatcher::submit(Request request, std::optional<int> replica) {
  CHORUS_TRY_VOID(check(request));
  if (config_.planted == PlantedFault::reuse_request_numbers && ledger_.requests() == 0) next_number_ = 1;
  const RequestId id{config_.client, next_number_};
  request.id = id;
  Routing routing{shape_of(request), {}};
  routing.place.wish = replica.value_or(WaitingRequests::any_replica);
  routing.place.order = {config_.by_priority ? request.priority : 0, admissions_};
  routing.place.tokens = request.prompt.size();
  CHORUS_TRY_VOID(ledger_.admit(std::move(request)));
  ++admissions_;
  ++next_number_;
  waiting_.push(id, routing.place);
  routings_.emplace(id, routing);
  place_waiting();
  return id;
}

void Dispatcher::abort(RequestId request) {
  std::erase_if(events_, [&](const FleetEvent& event) { return event.event.request == request; });
  const std::uint32_t sequences = ledger_.unfinished_choices(request);
  take_away(request, ledger_.abort(request), {ReplicaMessage::Kind::abort, {}, request, 0}, sequences);
}

void Dispatcher::abort_choice(RequestId request, std::uint32_t choice) {
  std::erase_if(
      events_, [&](const FleetEvent& event) { return event.event.request == request && event.event.choice == choice; });
  take_away(request, ledger_.abort_choice(request, choice), {ReplicaMessage::Kind::abort_choice, {}, request, choice},
            1);
}

// After the ledger has ended something of a request: tells the replica that had it, and gives its room to others.
void Dispatcher::take_away(RequestId request, std::optional<Placement> from, ReplicaMessage message,
                           std::uint32_t sequences) {
  if (!ledger_.contains(request)) forget(request);
  Replica* const replica = from ? find(*from) : nullptr;
  if (replica != nullptr) {
    replica->load.ended(sequences);
    replica->load.aborted();
    replica->messages.push_back(std::move(message));
  }
  place_waiting();
}

void Dispatcher::forget(RequestId request) {
  const auto routing = routings_.find(request);
  if (routing == routings_.end()) return;
  waiting_.erase(routing->second.place);
  suspects_.erase(routing->second.place.order);
  routings_.erase(routing);
  if (loan_ && loan_->suspect == request) return_loan();
}

std::uint64_t Dispatcher::reset_prefix_caches() {
  const RequestId number{config_.client, ++prefix_cache_resets_};
  for (auto& [rank, replica] : replicas_) {
    replica.reset_asked = number.number;
    // Of two in a row one does: its answer is for both.
    const bool again =
        !replica.messages.empty() && replica.messages.back().kind == ReplicaMessage::Kind::reset_prefix_cache;
    if (again) replica.messages.pop_back();
    replica.messages.push_back({ReplicaMessage::Kind::reset_prefix_cache, {}, number, 0});
  }
  return number.number;
}

bool Dispatcher::prefix_caches_are_reset(std::uint64_t number) const {
  return std::none_of(replicas_.begin(), replicas_.end(), [number](const auto& entry) {
    return entry.second.reset_asked >= number && entry.second.reset_done < number;
  });
}

void Dispatcher::on_prefix_cache_reset(Placement from, std::uint64_t number) {
  if (Replica* const replica = find(from)) replica->reset_done = std::max(replica->reset_done, number);
}

Dispatcher::Replica* Dispatcher::find(Placement placement) {
  const auto at = replicas_.find(placement.rank);
  return at != replicas_.end() && at->second.epoch == placement.epoch ? &at->second : nullptr;
}

bool Dispatcher::is_ready(Placement placement) const {
  const auto at = replicas_.find(placement.rank);
  return at != replicas_.end() && at->second.epoch == placement.epoch;
}

ReplicaLoad Dispatcher::load_of(int replica) const {
  const auto at = replicas_.find(replica);
  return at == replicas_.end() ? ReplicaLoad{} : at->second.load.load();
}

void Dispatcher::on_news(const ReplicaNews& news, const std::string& reason) {
  switch (news.state) {
    case ReplicaNews::State::ready:
      on_ready(news.replica);
      break;
    case ReplicaNews::State::draining:
      on_draining(news);
      break;
    case ReplicaNews::State::lent:
      if (news.client == config_.client) use_loan(news.replica);
      break;
    case ReplicaNews::State::died:
      on_death(news.replica, reason);
      break;
    case ReplicaNews::State::removed:
      ledger_.replica_removed(news.replica.rank);
      break;
  }
  place_waiting();
}

// What is known of this incarnation; nothing yet, if this is the first news of it.
Dispatcher::Replica& Dispatcher::known(Placement placement) {
  Replica& replica = replicas_[placement.rank];
  CHECK(replica.epoch == 0 || replica.epoch == placement.epoch, "rank {} epoch {} is there, epoch {} has not died",
        placement.rank, placement.epoch, replica.epoch);
  if (replica.epoch == 0) replica.load = LoadView(config_.planted);
  replica.epoch = placement.epoch;
  return replica;
}

void Dispatcher::on_ready(Placement placement) {
  Replica& replica = known(placement);
  replica.answers_when_empty = false;
  replica.open = !replica.moved_away;
  replica.opens_when_empty = replica.moved_away;
  on_empty(placement.rank);
}

void Dispatcher::on_draining(const ReplicaNews& news) {
  const Placement placement = news.replica;
  Replica& replica = known(placement);
  if (loan_ && loan_->replica == placement) return_loan();
  replica.open = replica.opens_when_empty = false;
  replica.answers_when_empty = true;
  replica.draining = news.number;
  if (news.move) move_away(placement);
  on_empty(placement.rank);
}

void Dispatcher::move_away(Placement placement) {
  for (const RequestId request : ledger_.requests_at(placement)) {
    const std::uint32_t sequences = ledger_.unfinished_choices(request);
    ledger_.withdraw(request);
    if (config_.planted != PlantedFault::lose_moved_request) wait_anew(request);
    Replica& replica = *find(placement);
    replica.moved_away = config_.planted != PlantedFault::return_at_once;
    replica.load.ended(sequences);
    replica.load.aborted();
    replica.messages.push_back({ReplicaMessage::Kind::abort, {}, request, 0});
  }
}

void Dispatcher::on_death(Placement placement, const std::string& reason) {
  if (loan_ && loan_->replica == placement) loan_.reset();  // the loan ended with it
  if (find(placement) != nullptr) {
    replicas_.erase(placement.rank);
    if (prefixes_) prefixes_->forget(placement.rank);
  }
  for (const RequestId request : ledger_.replica_died(placement)) {
    if (ledger_.fruitless_deaths(request) >= convicted_after_deaths) {
      convict(request, placement.rank, reason);
    } else {
      wait_anew(request);
    }
  }
}

// It has lost its replica.
void Dispatcher::wait_anew(RequestId request) {
  Routing& routing = routings_.at(request);
  routing.shape.sequences = ledger_.unfinished_choices(request);
  ++counters_.requests_moved;
  if (config_.planted == PlantedFault::lose_priority) routing.place.order = {0, admissions_++};
  const bool suspected = ledger_.fruitless_deaths(request) >= suspected_after_deaths;
  if (suspected && config_.planted != PlantedFault::blame_in_company) {
    suspects_.emplace(routing.place.order, request);
  } else {
    waiting_.push(request, routing.place);
  }
}

void Dispatcher::convict(RequestId request, int replica, const std::string& reason) {
  const std::uint32_t deaths = ledger_.fruitless_deaths(request);
  const std::string error = fmt::format(
      "request {} was in flight when {} replicas died, one after the other, and alone on the last {} of them{}; it is "
      "not tried again",
      request, deaths, convicted_after_deaths_alone,
      reason.empty() ? "" : fmt::format(" (worker rank {} {})", replica, reason));
  for (TokenEvent& end : ledger_.give_up(request, error)) events_.push_back({std::move(end), replica});
  forget(request);
}

Judgement Dispatcher::on_event(Placement from, TokenEvent&& event) {
  const RequestId request = event.request;
  const Judgement judgement = ledger_.on_event(from, &event);
  if (judgement.verdict != Verdict::accepted) return judgement;
  const bool brings_token = event.token.has_value();
  const bool lost = judgement.choice_finished && config_.planted == PlantedFault::lose_finish && ++finishes_ % 64 == 0;
  if (!lost) {
    FleetEvent& accepted = events_.emplace_back();
    accepted.event = std::move(event);
    accepted.dp_rank = from.rank;
  }
  if (judgement.request_finished) {
    forget(request);
  } else if (brings_token && loan_ && loan_->suspect == request) {
    return_loan();
    ask_for_loan();
  }
  if (!judgement.choice_finished) return judgement;
  if (Replica* const replica = find(from)) replica->load.ended(1);
  on_empty(from.rank);
  place_waiting();
  return judgement;
}

Judgement Dispatcher::on_report(Placement from, const LoadReport& report) {
  Replica* const replica = find(from);
  if (replica == nullptr) return {};
  if (!replica->load.report(report)) {
    return {Verdict::faulty, false, false,
            fmt::format("rank {} epoch {} reports {} messages, not what was sent", from.rank, from.epoch,
                        report.messages_received)};
  }
  on_empty(from.rank);
  place_waiting();
  return {Verdict::accepted, false, false, {}};
}

// Of what is this front end's: nothing is there, nothing is on its way, and nothing will be heard of what was. Others'
// requests are theirs to wait for: while they keep it busy it would never be empty of all.
bool Dispatcher::is_empty(int rank, const Replica& replica) const {
  return replica.messages.empty() && replica.load.has_seen_all() && ledger_.requests_on(rank) == 0;
}

// If it is.
void Dispatcher::on_empty(int rank) {
  const auto at = replicas_.find(rank);
  if (at == replicas_.end()) return;
  Replica& replica = at->second;
  if (!replica.moved_away && !replica.answers_when_empty) return;
  if (!is_empty(rank, replica)) return;
  replica.moved_away = false;
  if (std::exchange(replica.opens_when_empty, false)) replica.open = true;
  if (std::exchange(replica.answers_when_empty, false)) {
    notes_.push_back({ClientNote::Kind::drained, {rank, replica.epoch}, replica.draining});
  }
}

void Dispatcher::ask_for_loan() {
  if (suspects_.empty() || asked_for_loan_ || loan_) return;
  asked_for_loan_ = true;
  notes_.push_back({ClientNote::Kind::wants_alone, {}});
}

void Dispatcher::use_loan(Placement placement) {
  if (find(placement) == nullptr) return;
  asked_for_loan_ = false;
  loan_ = Loan{placement, {}};
  if (suspects_.empty()) return return_loan();
  const RequestId suspect = suspects_.begin()->second;
  suspects_.erase(suspects_.begin());
  loan_->suspect = suspect;
  place(suspect, placement.rank, ledger_.unfinished_choices(suspect));
}

// The suspect goes on where it is: others join it when the parent says so.
void Dispatcher::return_loan() {
  notes_.push_back({ClientNote::Kind::returned, loan_->replica});
  loan_.reset();
}

bool Dispatcher::has_room(const Replicas::value_type& entry, std::uint32_t sequences) const {
  const auto& [rank, replica] = entry;
  if (!replica.open || replica.messages.size() >= config_.limits.messages_waiting_max) return false;
  if (config_.planted == PlantedFault::ignore_window) return true;
  const std::uint32_t there = ledger_.sequences_on(rank);
  return there == 0 || there + sequences <= config_.limits.sequences_per_replica_max;
}

bool Dispatcher::takes_any(std::uint32_t sequences) const {
  return std::any_of(replicas_.begin(), replicas_.end(), [&](const auto& entry) { return has_room(entry, sequences); });
}

void Dispatcher::place_waiting() {
  while (place_first()) {
  }
  ask_for_loan();
}

// Of the first of each wish, the one that is first in the order among those for which there is room.
bool Dispatcher::place_first() {
  if (!takes_any(1)) return false;  // mostly so, and said without a look-up
  const WaitingRequests::Entry* first = nullptr;
  WaitingRequests::Order first_order;
  std::uint32_t first_sequences = 0;
  std::optional<int> wish;
  for (const auto& [wished, queue] : waiting_.queues()) {
    const auto& [order, entry] = *queue.begin();
    if (first != nullptr && first_order < order) continue;
    const auto replica = replicas_.find(wished);
    const bool granted = replica != replicas_.end() && replica->second.open;
    const std::uint32_t sequences = ledger_.unfinished_choices(entry.request);
    if (granted ? !has_room(*replica, sequences) : !takes_any(sequences)) continue;
    first = &entry;
    first_order = order;
    first_sequences = sequences;
    wish = granted ? std::optional(wished) : std::nullopt;
  }
  if (first == nullptr) return false;
  const RequestId request = first->request;
  Routing& routing = routings_.at(request);
  waiting_.erase(routing.place);
  routing.shape.sequences = first_sequences;
  place(request, wish ? *wish : pick(request, routing.shape), first_sequences);
  return true;
}

int Dispatcher::pick(RequestId request, const RequestShape& shape) {
  loads_.clear();
  ranks_.clear();
  for (const auto& entry : replicas_) {
    loads_.push_back(entry.second.load.load());
    loads_.back().accepting = has_room(entry, shape.sequences);
    ranks_.push_back(entry.first);
  }
  if (prefixes_) look_at_prefixes(request);
  const std::optional<std::size_t> index = balancer_->pick(shape, loads_);
  CHECK(index && *index < loads_.size() && loads_[*index].accepting, "the balancer picked none of those with room");
  if (loads_[*index].prefix_tokens > 0) {
    ++counters_.prefix_placements;
    counters_.prefix_tokens += loads_[*index].prefix_tokens;
  }
  return ranks_[*index];
}

void Dispatcher::look_at_prefixes(RequestId request) {
  const std::vector<std::uint64_t> held = prefixes_->held(ledger_.prompt(request), ranks_);
  for (std::size_t i = 0; i < loads_.size(); ++i) loads_[i].prefix_tokens = held[i];
}

void Dispatcher::on_prefixes(Placement from, const PrefixFeed& feed) {
  if (prefixes_ && find(from) != nullptr) prefixes_->update(from.rank, feed);
}

void Dispatcher::place(RequestId request, int rank, std::uint32_t sequences) {
  Replica& replica = replicas_.at(rank);
  replica.load.submitted(sequences);
  ReplicaMessage add{ReplicaMessage::Kind::add, ledger_.place(request, {rank, replica.epoch}), request, 0};
  for (const ChoiceState& choice : add.request.choices) counters_.tokens_replayed += choice.emitted.size();
  replica.messages.push_back(std::move(add));
}

std::optional<ReplicaMessage> Dispatcher::take_message(Placement to) {
  Replica* const replica = find(to);
  if (replica == nullptr || replica->messages.empty()) return std::nullopt;
  const bool was_full = replica->messages.size() >= config_.limits.messages_waiting_max;
  ReplicaMessage message = std::move(replica->messages.front());
  replica->messages.pop_front();
  const bool last = replica->messages.empty();
  if (last) on_empty(to.rank);
  if (was_full || last) place_waiting();  // to one that was full, or opens now
  return message;
}

void Dispatcher::take_events(std::vector<FleetEvent>* events) {
  if (events->empty()) {
    std::swap(events_, *events);  // neither list grows anew
  } else {
    std::move(events_.begin(), events_.end(), std::back_inserter(*events));
    events_.clear();
  }
}

std::vector<ClientNote> Dispatcher::take_notes() {
  return std::exchange(notes_, {});
}

}  // namespace chorus
