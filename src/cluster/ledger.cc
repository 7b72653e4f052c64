#include "cluster/ledger.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chorus {

Ledger::Ledger(int ranks, LedgerLimits limits) : limits_(limits), ranks_(static_cast<std::size_t>(ranks)) {
  CHECK(ranks > 0, "ranks {}", ranks);
}

Ledger::Rank& Ledger::rank_of(int rank) {
  CHECK(rank >= 0 && static_cast<std::size_t>(rank) < ranks_.size(), "rank {} of {}", rank, ranks_.size());
  return ranks_[static_cast<std::size_t>(rank)];
}

Result<void> Ledger::admit(Request request) {
  const RequestId id = request.id;
  CHECK(!entries_.contains(id), "request {} is in flight already", id);
  if (entries_.size() >= limits_.requests_max) {
    return fail(ErrorCode::resource_exhausted, "{} requests are in flight, the limit: try again later",
                entries_.size());
  }
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
    entry.choices.push_back({choice.index, std::move(choice.emitted), false, false});
  }
  request.choices.clear();
  entry.unfinished = static_cast<std::uint32_t>(entry.choices.size());
  entry.prompt_logprobs_delivered = request.skip_prompt_logprobs;
  entry.admission = admissions_++;
  entry.request = std::move(request);
  unplaced_.emplace(entry.admission, id);
  entries_.emplace(id, std::move(entry));
  return {};
}

std::optional<RequestId> Ledger::next_unplaced() const {
  if (unplaced_.empty()) return std::nullopt;
  return unplaced_.begin()->second;
}

Request Ledger::place(RequestId request, Placement placement) {
  const auto at = entries_.find(request);
  CHECK(at != entries_.end(), "request {} is not in flight", request);
  Entry& entry = at->second;
  CHECK(!entry.placement, "request {} is on rank {} already", request, entry.placement->rank);
  Rank& rank = rank_of(placement.rank);
  CHECK(placement.epoch > rank.died, "rank {} epoch {} has died", placement.rank, placement.epoch);
  entry.placement = placement;
  unplaced_.erase(entry.admission);
  ++rank.requests;
  rank.sequences += entry.unfinished;

  Request sent = entry.request;
  sent.skip_prompt_logprobs = entry.prompt_logprobs_delivered;
  for (const Choice& choice : entry.choices) {
    if (!choice.finished) sent.choices.push_back({choice.index, choice.emitted});
  }
  return sent;
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
  if (event.position + 1 == entry.request.params.max_tokens && event.finish == FinishReason::none) {
    return fmt::format("no finish with the last of {} tokens", entry.request.params.max_tokens);
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
  if (at == entries_.end() || at->second.placement != from) return {};
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
  if (entry.placement) --rank_of(entry.placement->rank).sequences;
}

void Ledger::forget(Entries::iterator at) {
  Entry& entry = at->second;
  if (entry.placement) {
    Rank& rank = rank_of(entry.placement->rank);
    --rank.requests;
    rank.sequences -= entry.unfinished;
  }
  unplaced_.erase(entry.admission);
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

std::vector<RequestId> Ledger::replica_died(Placement placement) {
  Rank& rank = rank_of(placement.rank);
  rank.died = std::max(rank.died, placement.epoch);
  std::vector<std::pair<std::uint64_t, RequestId>> homeless;
  for (auto& [id, entry] : entries_) {
    if (!entry.placement || entry.placement->rank != placement.rank || entry.placement->epoch > rank.died) continue;
    entry.placement.reset();
    ++entry.deaths_seen;
    ++entry.fruitless_deaths;
    --rank.requests;
    rank.sequences -= entry.unfinished;
    unplaced_.emplace(entry.admission, id);
    homeless.emplace_back(entry.admission, id);
  }
  std::sort(homeless.begin(), homeless.end());
  std::vector<RequestId> ids;
  for (const auto& [admission, id] : homeless) ids.push_back(id);
  return ids;
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

std::uint32_t Ledger::requests_on(int rank) const {
  return ranks_.at(static_cast<std::size_t>(rank)).requests;
}

std::uint32_t Ledger::sequences_on(int rank) const {
  return ranks_.at(static_cast<std::size_t>(rank)).sequences;
}

std::optional<Placement> Ledger::placement_of(RequestId request) const {
  const auto at = entries_.find(request);
  return at == entries_.end() ? std::nullopt : at->second.placement;
}

std::uint32_t Ledger::unfinished_choices(RequestId request) const {
  const auto at = entries_.find(request);
  return at == entries_.end() ? 0 : at->second.unfinished;
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
