#include "cluster/ledger.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

constexpr std::uint32_t tokens_expected = 64;  // of a choice: it gets room for so many at once

}  // namespace

Result<void> Ledger::admit(Request request) {
  const RequestId id = request.id;
  CHECK(!entries_.contains(id), "request {} is in flight already", id);
  const std::uint32_t max_tokens = request.params.max_tokens;
  if (request.choices.empty()) {
    for (std::uint32_t index = 0; index < request.params.n; ++index) request.choices.push_back({index, {}});
  }
  if (request.choices.empty() || max_tokens == 0) {
    return fail(ErrorCode::invalid_argument, "request {} has n {} and max_tokens {}: give at least 1 of each", id,
                request.params.n, max_tokens);
  }
  Entry entry;
  for (ChoiceState& choice : request.choices) {
    if (choice.emitted.size() >= max_tokens) {
      return fail(ErrorCode::invalid_argument, "choice {} of request {} has all of its {} tokens: leave it out",
                  choice.index, id, max_tokens);
    }
    choice.emitted.reserve(std::min(max_tokens, tokens_expected));
    entry.choices.push_back({choice.index, std::move(choice.emitted), false, false});
  }
  request.choices.clear();
  entry.max_tokens = max_tokens;
  entry.unfinished = static_cast<std::uint32_t>(entry.choices.size());
  entry.prompt_logprobs_delivered = request.skip_prompt_logprobs;
  entry.admission = admissions_++;
  entry.request = std::move(request);
  entries_.emplace(id, std::move(entry));
  return {};
}

Request Ledger::place(RequestId request, Placement placement) {
  const auto at = entries_.find(request);
  CHECK(at != entries_.end(), "request {} is not in flight", request);
  Entry& entry = at->second;
  CHECK(!entry.placement, "request {} is on replica {} already", request, entry.placement->rank);
  Replica& replica = replicas_[placement.rank];
  CHECK(placement.epoch > replica.died, "rank {} epoch {} has died", placement.rank, placement.epoch);
  entry.placement = placement;
  ++replica.requests;
  replica.sequences += entry.unfinished;

  Request sent = entry.request;
  sent.skip_prompt_logprobs = entry.prompt_logprobs_delivered;
  for (Choice& choice : entry.choices) {
    if (choice.finished) continue;
    if (planted_ == PlantedFault::forget_last_token && !choice.emitted.empty()) choice.emitted.pop_back();
    sent.choices.push_back({choice.index, choice.emitted});
  }
  return sent;
}

// It leaves the replica that it is on, if any.
void Ledger::take_off(Entry& entry) {
  if (!entry.placement) return;
  Replica& replica = replicas_[entry.placement->rank];
  --replica.requests;
  replica.sequences -= entry.unfinished;
  entry.placement.reset();
}

void Ledger::withdraw(RequestId request) {
  const auto at = entries_.find(request);
  CHECK(at != entries_.end(), "request {} is not in flight", request);
  take_off(at->second);
}

Ledger::Choice* Ledger::find_choice(Entry& entry, std::uint32_t index) {
  if (index < entry.choices.size() && entry.choices[index].index == index) return &entry.choices[index];
  const auto at = std::find_if(entry.choices.begin(), entry.choices.end(),
                               [&](const Choice& choice) { return choice.index == index; });
  return at == entry.choices.end() ? nullptr : &*at;
}

// What is wrong with a token or finish that is not a plain repetition; empty if nothing.
std::string Ledger::fault_of(const Entry& entry, const Choice& choice, const TokenEvent& event) {
  if (!event.token) return {};
  const std::size_t emitted = choice.emitted.size();
  if (choice.finished) return fmt::format("token at position {} after the finish", event.position);
  if (event.position != emitted) return fmt::format("position {} where {} was to come", event.position, emitted);
  if (event.position + 1 == entry.max_tokens && event.finish == FinishReason::none) {
    return fmt::format("no finish with the last of {} tokens", entry.max_tokens);
  }
  return {};
}

// Prompt logprobs are delivered once. True when the event (still) brings some.
bool Ledger::take_prompt_logprobs(Entry& entry, TokenEvent* event) {
  if (event->prompt_logprobs.empty()) return false;
  if (std::exchange(entry.prompt_logprobs_delivered, true)) event->prompt_logprobs.clear();
  return !event->prompt_logprobs.empty();
}

Judgement Ledger::on_event(Placement from, TokenEvent* event) {
  const auto at = entries_.find(event->request);
  if (at == entries_.end()) return {};
  if (at->second.placement != from && planted_ != PlantedFault::ignore_epochs) return {};
  Entry& entry = at->second;
  const auto faulty = [&](const std::string& what) {
    return Judgement{Verdict::faulty, false, false,
                     fmt::format("rank {} epoch {}, request {} choice {}: {}", from.rank, from.epoch, event->request,
                                 event->choice, what)};
  };
  Choice* const choice = find_choice(entry, event->choice);
  if (choice == nullptr) return faulty("no such choice");
  if (choice->aborted) return {};
  if (event->token && event->position < choice->emitted.size()) {
    if (choice->emitted[event->position] != *event->token) {
      return faulty(fmt::format("position {} was token {} and is {} now", event->position,
                                choice->emitted[event->position], *event->token));
    }
    if (event->finish == FinishReason::none || choice->finished) return {};
    return faulty(fmt::format("the finish came after its token at position {}", event->position));
  }
  if (std::string fault = fault_of(entry, *choice, *event); !fault.empty()) return faulty(fault);
  const bool brings_logprobs = take_prompt_logprobs(entry, event);
  const bool finishes = event->finish != FinishReason::none && !choice->finished;
  if (!event->token && !finishes && !brings_logprobs) return {};

  if (event->token) {
    choice->emitted.push_back(*event->token);
    entry.fruitless_deaths = 0;
    // A prompt of one token has an empty list of them: they count as delivered with the token that would bring them.
    if (event->choice == 0) entry.prompt_logprobs_delivered = true;
  }
  if (finishes) end_choice(entry, *choice);
  Judgement judgement{Verdict::accepted, entry.unfinished == 0, finishes, {}};
  if (judgement.request_finished) forget(at);
  return judgement;
}

void Ledger::end_choice(Entry& entry, Choice& choice) {
  choice.finished = true;
  --entry.unfinished;
  if (entry.placement) --replicas_[entry.placement->rank].sequences;
}

void Ledger::forget(Entries::iterator at) {
  take_off(at->second);
  entries_.erase(at);
}

std::optional<Placement> Ledger::abort(RequestId request) {
  const auto at = entries_.find(request);
  if (at == entries_.end()) return std::nullopt;
  const std::optional<Placement> placement = at->second.placement;
  forget(at);
  return placement;
}

std::optional<Placement> Ledger::abort_choice(RequestId request, std::uint32_t choice) {
  const auto at = entries_.find(request);
  if (at == entries_.end()) return std::nullopt;
  Entry& entry = at->second;
  Choice* const ended = find_choice(entry, choice);
  if (ended == nullptr || ended->finished) return std::nullopt;
  const std::optional<Placement> placement = entry.placement;
  ended->aborted = true;
  end_choice(entry, *ended);
  if (entry.unfinished == 0) forget(at);
  return placement;
}

std::vector<RequestId> Ledger::requests_at(Placement placement) const {
  std::vector<std::pair<std::uint64_t, RequestId>> found;
  for (const auto& [id, entry] : entries_) {
    if (entry.placement == placement) found.emplace_back(entry.admission, id);
  }
  std::sort(found.begin(), found.end());
  std::vector<RequestId> ids;
  for (const auto& [admission, id] : found) ids.push_back(id);
  return ids;
}

std::vector<RequestId> Ledger::replica_died(Placement placement) {
  Replica& replica = replicas_[placement.rank];
  replica.died = std::max(replica.died, placement.epoch);
  const std::vector<RequestId> homeless = requests_at(placement);
  for (const RequestId id : homeless) {
    Entry& entry = entries_.at(id);
    ++entry.deaths_seen;
    ++entry.fruitless_deaths;
    take_off(entry);
  }
  return homeless;
}

void Ledger::replica_removed(int replica) {
  CHECK(requests_on(replica) == 0, "replica {} is removed with {} requests", replica, requests_on(replica));
  replicas_.erase(replica);
}

std::vector<TokenEvent> Ledger::give_up(RequestId request, const std::string& error) {
  const auto at = entries_.find(request);
  CHECK(at != entries_.end(), "request {} is not in flight", request);
  std::vector<TokenEvent> events;
  for (const Choice& choice : at->second.choices) {
    if (choice.finished) continue;
    TokenEvent event;
    event.request = request;
    event.choice = choice.index;
    event.position = static_cast<std::uint32_t>(choice.emitted.size());
    event.finish = FinishReason::error;
    event.error = error;
    events.push_back(std::move(event));
  }
  forget(at);
  return events;
}

std::uint32_t Ledger::requests_on(int replica) const {
  const auto at = replicas_.find(replica);
  return at == replicas_.end() ? 0 : at->second.requests;
}

std::uint32_t Ledger::sequences_on(int replica) const {
  const auto at = replicas_.find(replica);
  return at == replicas_.end() ? 0 : at->second.sequences;
}

std::optional<Placement> Ledger::placement_of(RequestId request) const {
  const auto at = entries_.find(request);
  return at == entries_.end() ? std::nullopt : at->second.placement;
}

std::uint32_t Ledger::unfinished_choices(RequestId request) const {
  const auto at = entries_.find(request);
  return at == entries_.end() ? 0 : at->second.unfinished;
}

std::span<const TokenId> Ledger::prompt(RequestId request) const {
  const auto at = entries_.find(request);
  return at == entries_.end() ? std::span<const TokenId>() : at->second.request.prompt;
}

std::uint32_t Ledger::deaths_seen(RequestId request) const {
  const auto at = entries_.find(request);
  return at == entries_.end() ? 0 : at->second.deaths_seen;
}

std::uint32_t Ledger::fruitless_deaths(RequestId request) const {
  const auto at = entries_.find(request);
  return at == entries_.end() ? 0 : at->second.fruitless_deaths;
}

}  // namespace chorus
