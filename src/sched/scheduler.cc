#include "sched/scheduler.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "sched/finish.h"
#include "sched/invariants.h"
#include "sched/kv_cache_manager.h"
#include "sched/plan_ring.h"
#include "sched/sequence.h"
#include "sched/validate_request.h"

namespace chorus {
namespace {

class ContinuousBatching final : public Scheduler {
 public:
  ContinuousBatching(const SchedulerConfig& config, PrefixHash hash)
      : config_(config),
        by_rank_{config.by_priority},
        waiting_(by_rank_),
        kv_(config.kv_blocks, kv_shape(config), config.enable_prefix_caching, config.prefix_hash_key, hash),
        plans_(config.plans_in_flight_max) {
    CHECK(
        config.max_num_seqs > 0 && config.max_num_batched_tokens > 0 && config.block_size > 0 && config.kv_blocks >= 0,
        "max_num_seqs {} max_num_batched_tokens {} block_size {} kv_blocks {}", config.max_num_seqs,
        config.max_num_batched_tokens, config.block_size, config.kv_blocks);
    CHECK(config.plans_in_flight_max > 0, "plans_in_flight_max {}", config.plans_in_flight_max);
    CHECK(config.kv_pools == 1 ||
              (config.kv_pools > 1 && config.kv_pool_tokens > 0 && config.kv_pool_tokens % config.block_size == 0),
          "kv_pools {} kv_pool_tokens {} block_size {}", config.kv_pools, config.kv_pool_tokens, config.block_size);
    CHECK(config.kv_window.tables == 0 || (config.kv_window.keys > 0 && config.kv_pools == 1),
          "{} windowed tables of {} keys, {} pools", config.kv_window.tables, config.kv_window.keys, config.kv_pools);
    if (config.feeds_prefixes && kv_.cache() != nullptr) kv_.cache()->keep_changes();
  }

  void add(Request request) override;
  bool contains(RequestId id) const override { return requests_.contains(id); }
  void abort(RequestId id) override;
  void abort_choice(RequestId id, std::uint32_t choice) override;
  std::size_t abort_client(ClientId client) override;
  bool has_work() const override {
    return !told_next_.empty() || !running_.empty() || !waiting_.empty() || plans_.in_flight() > 0;
  }
  const StepPlan& schedule(Nanoseconds now) override;
  void complete(const StepResult& result, Nanoseconds now, std::vector<TokenEvent>* events) override;
  std::int32_t plans_in_flight() const override { return plans_.in_flight(); }
  SchedulerStats stats() const override;
  void reset_prefix_cache() override;
  PrefixFeed take_prefix_changes() override {
    return kv_.cache() == nullptr ? PrefixFeed() : kv_.cache()->take_changes();
  }
  PrefixFeed prefixes() override { return kv_.cache() == nullptr ? PrefixFeed() : kv_.cache()->all(); }
  void check_invariants() const override {
    check_scheduler_invariants(config_, by_rank_, running_, waiting_, kv_.blocks());
    check_plan_invariants(config_, running_, plans_, kv_.blocks());
  }

 private:
  void add_sequence(RequestState* state, const ChoiceState& choice);
  std::size_t share(std::size_t sequences) const;
  bool plan_running(PlanSlot* slot);
  void admit_waiting(PlanSlot* slot);
  bool admit(Sequence* sequence);
  // What the first running sibling that can be shared from is, and whether there is one to wait for.
  std::pair<const Sequence*, bool> find_sibling(const Sequence& sequence) const;
  bool make_room(Sequence* sequence, std::int32_t length);
  void preempt(Sequence* sequence);
  void plan_rows(PlanSlot* slot, Sequence* sequence);
  void complete_sequence(const SequencePlan& plan, Sequence* sequence, const SequenceResult& result,
                         std::vector<TokenEvent>* events);
  void take_prompt_logprobs(const SequencePlan& plan, RequestState* state, const SequenceResult& result);
  TokenEvent* tell(Sequence* sequence, std::vector<TokenEvent>* events);
  void tell_prefill(Sequence* sequence, TokenEvent* event) const;
  void finish(Sequence* sequence);

  const SchedulerConfig config_;
  const ByRank by_rank_;
  std::map<RequestId, RequestState> requests_;
  std::vector<Sequence*> running_;       // by rank
  std::set<Sequence*, ByRank> waiting_;  // by rank
  KvCacheManager kv_;
  std::vector<TokenEvent> told_next_;  // of requests that ended when they were added
  PlanRing plans_;
  std::vector<std::uint64_t> ended_;  // of earlier plans, since the last one
  std::int32_t budget_ = 0;           // rows left in the step that is being planned
  std::uint64_t next_sequence_ = 0;
  Nanoseconds now_ = 0;  // of the present call
  SchedulerStats counters_;
};

void ContinuousBatching::add(Request request) {
  if (request.choices.empty()) {
    for (std::uint32_t choice = 0; choice < request.params.n; ++choice) request.choices.push_back({choice, {}});
  }
  if (const auto error = validate_request(request, config_)) {
    if (request.choices.empty()) request.choices.resize(1);
    for (const ChoiceState& choice : request.choices) {
      TokenEvent& event = told_next_.emplace_back();
      event.request = request.id;
      event.choice = choice.index;
      event.position = static_cast<std::uint32_t>(choice.emitted.size());
      event.finish = FinishReason::error;
      event.error = *error;
    }
    return;
  }
  const auto [at, is_new] = requests_.try_emplace(request.id);
  CHECK(is_new, "request id {} is in use", request.id);
  RequestState& state = at->second;
  state.prompt_length = static_cast<std::int32_t>(request.prompt.size());
  state.output_limit = output_limit(request.params, state.prompt_length, config_.max_model_len);
  state.banned = banned_below_min_tokens(request.params, config_.eos_token_ids);
  const std::vector<ChoiceState> choices = std::exchange(request.choices, {});
  state.request = std::move(request);
  state.root = kv_.root(state.request.cache_salt);
  for (const ChoiceState& choice : choices) add_sequence(&state, choice);
  if (state.leader() == nullptr) requests_.erase(at);
}

void ContinuousBatching::add_sequence(RequestState* state, const ChoiceState& choice) {
  // A choice whose emitted tokens end it already, only its finish was lost on the way.
  if (const Finish finish =
          finish_check(state->request.params, config_.eos_token_ids, choice.emitted, state->output_limit);
      finish.reason != FinishReason::none) {
    TokenEvent& event = told_next_.emplace_back();
    event.request = state->request.id;
    event.choice = choice.index;
    event.position = static_cast<std::uint32_t>(choice.emitted.size());
    event.finish = finish.reason;
    event.stop_token = finish.stop_token;
    return;
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_sequence_++;
  sequence->request = state;
  sequence->choice = choice.index;
  sequence->link = state->root;
  sequence->history = state->request.prompt;
  sequence->history.insert(sequence->history.end(), choice.emitted.begin(), choice.emitted.end());
  waiting_.insert(sequence.get());
  state->sequences.push_back(std::move(sequence));
}

void ContinuousBatching::abort(RequestId id) {
  std::erase_if(told_next_, [id](const TokenEvent& event) { return event.request == id; });
  const auto at = requests_.find(id);
  if (at == requests_.end()) return;
  for (const auto& sequence : at->second.sequences) {
    if (sequence->status != SequenceStatus::finished) finish(sequence.get());
  }
  requests_.erase(at);
}

void ContinuousBatching::abort_choice(RequestId id, std::uint32_t choice) {
  std::erase_if(told_next_, [&](const TokenEvent& event) { return event.request == id && event.choice == choice; });
  const auto at = requests_.find(id);
  if (at == requests_.end()) return;
  for (const auto& sequence : at->second.sequences) {
    if (sequence->choice == choice && sequence->status != SequenceStatus::finished) finish(sequence.get());
  }
  if (at->second.leader() == nullptr) requests_.erase(at);
}

std::size_t ContinuousBatching::abort_client(ClientId client) {
  std::erase_if(told_next_, [client](const TokenEvent& event) { return event.request.client == client; });
  std::size_t requests = 0;
  const auto of_client = [&] { return requests_.lower_bound({client, 0}); };
  for (auto at = of_client(); at != requests_.end() && at->first.client == client; at = of_client(), ++requests) {
    abort(RequestId(at->first));
  }
  return requests;
}

void ContinuousBatching::finish(Sequence* sequence) {
  if (sequence->status == SequenceStatus::running) {
    running_.erase(std::ranges::find(running_, sequence));
    kv_.release(sequence);
  } else {
    waiting_.erase(sequence);
  }
  plans_.forget(sequence);
  if (sequence->ever_planned) ended_.push_back(sequence->id);
  sequence->status = SequenceStatus::finished;
  sequence->history = {};
}

const StepPlan& ContinuousBatching::schedule(Nanoseconds now) {
  now_ = now;
  PlanSlot& slot = plans_.begin();
  budget_ = config_.max_num_batched_tokens;
  if (plan_running(&slot)) admit_waiting(&slot);
  CHECK(slot.plan.rows > 0 || plans_.in_flight() > 0 || (running_.empty() && waiting_.empty()),
        "no progress: {} running, {} waiting, {} blocks free", running_.size(), waiting_.size(), kv_.blocks().free());
  if (slot.plan.rows > 0) {
    slot.plan.ended.swap(ended_);
    plans_.launch();
  }
  return slot.plan;
}

// What one plan may take of so many sequences.
std::size_t ContinuousBatching::share(std::size_t sequences) const {
  const auto plans = static_cast<std::size_t>(config_.plans_in_flight_max);
  return (sequences + plans - 1) / plans;
}

// False: a sequence waits for blocks of those in flight, and nothing may overtake it.
bool ContinuousBatching::plan_running(PlanSlot* slot) {
  const std::size_t sequences_max = share(running_.size());
  // Preemption takes from behind, so that what is planned already stays.
  for (std::size_t i = 0; i < running_.size() && budget_ > 0 && slot->sequences.size() < sequences_max; ++i) {
    Sequence* sequence = running_[i];
    if (sequence->in_flight()) continue;
    if (!make_room(sequence, sequence->computed + std::min(budget_, sequence->length() - sequence->computed))) {
      return sequence->status != SequenceStatus::running;  // preempted, as the last one there was
    }
    plan_rows(slot, sequence);
  }
  return true;
}

bool ContinuousBatching::make_room(Sequence* sequence, std::int32_t length) {
  while (!kv_.grow(sequence, length)) {
    const auto victim = std::find_if(running_.rbegin(), running_.rend(), [sequence](const Sequence* candidate) {
      return candidate == sequence || !candidate->in_flight();
    });
    // All behind it are in flight: it takes their blocks when they have landed.
    if (*victim == sequence && running_.back() != sequence) return false;
    preempt(*victim);
    if (sequence->status != SequenceStatus::running) return false;
  }
  return true;
}

void ContinuousBatching::preempt(Sequence* sequence) {
  running_.erase(std::ranges::find(running_, sequence));
  kv_.release(sequence);
  sequence->status = SequenceStatus::waiting;
  waiting_.insert(sequence);
  ++counters_.preemptions;
  ++sequence->preemptions_untold;
}

void ContinuousBatching::admit_waiting(PlanSlot* slot) {
  const auto running_max = static_cast<std::size_t>(config_.max_num_seqs);
  const std::size_t sequences_max = share(std::min(running_.size() + waiting_.size(), running_max));
  for (auto at = waiting_.begin(); at != waiting_.end() && budget_ > 0;) {
    if (running_.size() >= running_max || slot->sequences.size() >= sequences_max) return;
    Sequence* sequence = *at;
    if (find_sibling(*sequence).second) {
      ++at;
      continue;
    }
    if (!admit(sequence)) return;
    at = waiting_.erase(at);
    running_.insert(std::ranges::upper_bound(running_, sequence, by_rank_), sequence);
    sequence->status = SequenceStatus::running;
    plan_rows(slot, sequence);
  }
}

std::pair<const Sequence*, bool> ContinuousBatching::find_sibling(const Sequence& sequence) const {
  const RequestState& state = *sequence.request;
  // With several plans in flight a choice could pass the one that has yet to bring the last prompt logprobs, and if
  // that one were aborted then, nobody would compute them.
  const bool lacks_logprobs =
      config_.plans_in_flight_max > 1 && state.wants_prompt_logprobs() && !state.prompt_logprobs_complete();
  bool computing = false;
  for (const auto& sibling : state.sequences) {
    if (sibling->status != SequenceStatus::running) continue;
    const bool has_prompt = sibling->computed / config_.block_size >= state.prompt_length / config_.block_size;
    if (has_prompt && !lacks_logprobs) return {sibling.get(), false};
    computing = true;
  }
  return {nullptr, computing};
}

bool ContinuousBatching::admit(Sequence* sequence) {
  const RequestState& state = *sequence->request;
  // Prompt logprobs come from computing every row of the prompt.
  const bool every_row =
      state.wants_prompt_logprobs() && !state.prompt_logprobs_complete() && state.leader() == sequence;
  if (!kv_.admit(sequence, !every_row, every_row ? nullptr : find_sibling(*sequence).first)) return false;
  // All a sequence will ever need, so that a step of decoding allocates nothing.
  const std::int64_t length_max = state.prompt_length + state.output_limit;
  sequence->history.reserve(static_cast<std::size_t>(length_max));
  sequence->block_table.reserve(static_cast<std::size_t>(kv_.blocks_for(length_max)));
  for (auto& table : sequence->window_tables) table.reserve(static_cast<std::size_t>(kv_.blocks_for(length_max)));
  return true;
}

void ContinuousBatching::plan_rows(PlanSlot* slot, Sequence* sequence) {
  const RequestState& state = *sequence->request;
  const std::int32_t output = sequence->length() - state.prompt_length;
  SequencePlan& plan = plans_.add(sequence);
  if (!std::exchange(sequence->ever_planned, true)) {
    sequence->begun_at = now_;
    sequence->found_cached = std::min(sequence->computed, state.prompt_length);
  }
  plan.sequence = sequence->id;
  plan.start = sequence->computed;
  plan.count = std::min(budget_, sequence->length() - sequence->computed);
  plan.block_table = sequence->block_table;
  plan.window_tables = sequence->window_tables;
  plan.history = sequence->history;
  plan.prompt_length = state.prompt_length;
  plan.sample = plan.start + plan.count == sequence->length();
  plan.choice = sequence->choice;
  plan.params = &state.request.params;
  // Rows up to the last but one of the prompt predict prompt tokens; those before a preemption have told theirs.
  plan.prompt_logprobs = state.wants_prompt_logprobs() && !state.prompt_logprobs_complete() &&
                         state.leader() == sequence &&
                         plan.start + plan.count > static_cast<std::int32_t>(state.prompt_logprobs.size());
  if (static_cast<std::uint32_t>(output) < state.request.params.min_tokens) plan.banned = state.banned;
  slot->plan.rows += plan.count;
  budget_ -= plan.count;
}

void ContinuousBatching::complete(const StepResult& result, Nanoseconds now, std::vector<TokenEvent>* events) {
  now_ = now;
  for (TokenEvent& event : told_next_) events->push_back(std::move(event));
  told_next_.clear();
  if (plans_.in_flight() == 0) return;
  const PlanSlot& slot = plans_.land();
  CHECK(result.sequences.size() == slot.sequences.size(), "{} results for {} sequences", result.sequences.size(),
        slot.sequences.size());
  counters_.rows += static_cast<std::uint64_t>(slot.plan.rows);
  for (std::size_t i = 0; i < slot.sequences.size(); ++i) {
    if (slot.sequences[i] == nullptr) continue;
    complete_sequence(slot.plan.sequences[i], slot.sequences[i], result.sequences[i], events);
  }
}

// Of `plan` only the numbers are used: what it points to may have moved since it was made.

void ContinuousBatching::complete_sequence(const SequencePlan& plan, Sequence* sequence, const SequenceResult& result,
                                           std::vector<TokenEvent>* events) {
  RequestState* state = sequence->request;
  sequence->computed += plan.count;
  counters_.prompt_tokens +=
      static_cast<std::uint64_t>(std::max(std::min(plan.count, state->prompt_length - plan.start), 0));
  if (plan.prompt_logprobs) take_prompt_logprobs(plan, state, result);
  FinishReason ended = FinishReason::none;
  if (result.not_a_number) {
    TokenEvent* event = tell(sequence, events);
    event->finish = ended = FinishReason::error;
    event->error = fmt::format(
        "the model gave no finite logits at output position {} of choice {}: check the checkpoint, or "
        "try --dtype float32",
        event->position, event->choice);
  } else {
    kv_.remember(sequence);
    if (!plan.sample) return;
    CHECK(result.token >= 0 && result.token < config_.vocab_size, "token {} of {}", result.token, config_.vocab_size);
    TokenEvent* event = tell(sequence, events);
    event->token = result.token;
    tell_prefill(sequence, event);
    if (state->request.params.logprobs) event->logprobs = result.logprobs;
    sequence->history.push_back(result.token);
    ++counters_.output_tokens;
    const auto output =
        std::span<const TokenId>(sequence->history).subspan(static_cast<std::size_t>(state->prompt_length));
    const Finish finish = finish_check(state->request.params, config_.eos_token_ids, output, state->output_limit);
    event->finish = ended = finish.reason;
    event->stop_token = finish.stop_token;
  }
  if (ended == FinishReason::none) return;
  finish(sequence);
  if (state->leader() == nullptr) requests_.erase(state->request.id);
}

void ContinuousBatching::take_prompt_logprobs(const SequencePlan& plan, RequestState* state,
                                              const SequenceResult& result) {
  const std::int32_t end = std::min(plan.start + plan.count, state->prompt_length - 1);
  const auto known = static_cast<std::int32_t>(state->prompt_logprobs.size());
  if (result.not_a_number) return;
  CHECK(plan.start <= known && static_cast<std::int32_t>(result.prompt_logprobs.size()) == end - plan.start,
        "rows [{}, {}) gave {} prompt logprobs, {} known", plan.start, end, result.prompt_logprobs.size(), known);
  for (std::int32_t row = known; row < end; ++row) {
    state->prompt_logprobs.push_back(result.prompt_logprobs[static_cast<std::size_t>(row - plan.start)]);
  }
}

// A new event of this sequence, with the prompt logprobs if they are due.
TokenEvent* ContinuousBatching::tell(Sequence* sequence, std::vector<TokenEvent>* events) {
  RequestState* state = sequence->request;
  TokenEvent& event = events->emplace_back();
  event.request = state->request.id;
  event.choice = sequence->choice;
  event.position = static_cast<std::uint32_t>(sequence->length() - state->prompt_length);
  if (state->wants_prompt_logprobs() && state->prompt_logprobs_complete() && state->leader() == sequence) {
    event.prompt_logprobs = std::exchange(state->prompt_logprobs, {});
    state->prompt_logprobs_told = true;
  }
  if (const std::uint32_t preemptions = std::exchange(sequence->preemptions_untold, 0)) event.preemptions = preemptions;
  return &event;
}

void ContinuousBatching::tell_prefill(Sequence* sequence, TokenEvent* event) const {
  if (std::exchange(sequence->prefill_told, true)) return;
  const Nanoseconds duration = std::max<Nanoseconds>(now_ - sequence->begun_at, 0);
  event->prefill =
      PrefillReport{static_cast<std::uint64_t>(sequence->found_cached), static_cast<std::uint64_t>(duration / 1'000)};
}

void ContinuousBatching::reset_prefix_cache() {
  ++counters_.prefix_cache_resets;
  if (kv_.cache() == nullptr) return;
  kv_.cache()->clear();
  for (Sequence* sequence : running_) sequence->link_lost = true;
}

SchedulerStats ContinuousBatching::stats() const {
  SchedulerStats stats = counters_;
  stats.waiting = static_cast<std::uint32_t>(waiting_.size());
  stats.running = static_cast<std::uint32_t>(running_.size());
  stats.kv_blocks_free = static_cast<std::uint64_t>(kv_.blocks().free());
  stats.kv_blocks_total = static_cast<std::uint64_t>(kv_.blocks().total());
  stats.prefix_cache_queries = kv_.counters().queries;
  stats.prefix_cache_hits = kv_.counters().hits;
  return stats;
}

}  // namespace

std::unique_ptr<Scheduler> make_scheduler(const SchedulerConfig& config, PrefixHash hash) {
  return std::make_unique<ContinuousBatching>(config, hash);
}

}  // namespace chorus
