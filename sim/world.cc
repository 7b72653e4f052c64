#include "world.h"

#include <algorithm>
#include <utility>

namespace chorus::sim {
namespace {

constexpr Nanoseconds kMicrosecond = 1'000;
constexpr Nanoseconds kMillisecond = 1'000'000;
constexpr Nanoseconds kSecond = 1'000'000'000;
constexpr Nanoseconds kHangLimit = 300 * kSecond;  // after the last arrival
constexpr Nanoseconds kSettleTime = 3 * kSecond;   // longer than any stop of a replica

SchedulerConfig draw_scheduler(Random* random) {
  SchedulerConfig config;
  config.vocab_size = kVocabSize;
  config.max_model_len = kMaxModelLen;
  config.eos_token_ids = {kEos};
  config.max_num_seqs = static_cast<std::int32_t>(random->between(2, 16));
  config.max_num_batched_tokens = static_cast<std::int32_t>(random->between(config.max_num_seqs, 64));
  config.block_size = 1 << random->between(1, 4);
  config.plans_in_flight_max = static_cast<std::int32_t>(random->between(1, 4));
  config.kv_pools = 1 << random->between(0, 2);
  config.kv_pool_tokens = config.block_size * static_cast<std::int32_t>(random->between(1, 2));
  // A sequence alone must fit; many together must not, most of the time.
  const std::int32_t longest = kPromptMax + static_cast<std::int32_t>(kOutputMax);
  const std::int32_t sequence_blocks = (longest + config.block_size - 1) / config.block_size;
  std::int32_t needed = sequence_blocks;  // more when the pools' turns leave some blocks unused
  while (kv_pools(config).short_of(sequence_blocks, needed) >= 0) ++needed;
  config.kv_blocks = needed + static_cast<std::int32_t>(random->between(0, needed * (random->chance(0.7) ? 2 : 16)));
  config.enable_prefix_caching = random->chance(0.8);
  config.by_priority = random->chance(0.3);
  config.prefix_hash_key = {random->next(), random->next()};
  return config;
}

SupervisorLimits draw_limits() {
  SupervisorLimits limits;
  limits.start_timeout = kSecond;
  limits.heartbeat_timeout = 400 * kMillisecond;
  limits.kill_timeout = 200 * kMillisecond;
  limits.backoff_first = 20 * kMillisecond;
  limits.backoff_max = 500 * kMillisecond;
  limits.stable_after = kSecond;
  limits.restarts_max = 4;
  return limits;
}

std::uint64_t cluster_seed(const WorldConfig& config) {
  return (config.cluster_seed != 0 ? config.cluster_seed : config.seed) ^ 0xC0FFEE;
}

}  // namespace

void Totals::add(const Totals& other) {
  requests += other.requests;
  tokens += other.tokens;
  deaths += other.deaths;
  zombies += other.zombies;
  resubmissions += other.resubmissions;
  dropped += other.dropped;
  all_dead += other.all_dead;
  preemptions += other.preemptions;
  cache_hits += other.cache_hits;
  aborts += other.aborts;
  most_in_flight = std::max(most_in_flight, other.most_in_flight);
  pooled += other.pooled;
}

World::Shape World::draw_shape(const WorldConfig& config, Random* random) {
  Shape shape;
  const auto drawn = static_cast<int>(random->between(1, 8));
  shape.replicas = config.replicas > 0 ? config.replicas : drawn;
  shape.scheduler = draw_scheduler(random);
  shape.balancer = random->chance(0.5) ? LoadBalancerName::least_loaded : LoadBalancerName::round_robin;
  shape.limits = draw_limits();
  shape.step_time = random->between(500, 4000) * kMicrosecond;
  shape.delay_mean = random->between(20, 2000) * kMicrosecond;
  shape.fault_gap = random->between(30, 300) * kMillisecond;
  shape.pinned = random->chance(0.3) ? 0.5 : 0;
  return shape;
}

World::World(const WorldConfig& config)
    : config_(config),
      random_(cluster_seed(config)),
      shape_(draw_shape(config, &random_)),
      // The times are the clients' too: drawn from the workload's seed.
      jobs_(make_workload(config.seed, config.requests, Random(config.seed ^ 0xA44).between(1, 8) * kMillisecond)),
      router_(shape_.replicas, make_load_balancer(shape_.balancer)),
      supervisor_(shape_.limits),
      died_(static_cast<std::size_t>(shape_.replicas), 0),
      oracle_model_(toy_config(shape_.scheduler)),
      clients_(&oracle_model_),
      saboteur_(config.sabotage, random_.next()) {}

Outcome World::run() {
  for (int rank = 0; rank < shape_.replicas; ++rank) supervisor_.add(true);
  for (int rank = 0; rank < shape_.replicas; ++rank) supervisor_.start(rank, queue_.now());
  pump();
  if (!jobs_.empty()) queue_.at(jobs_.front().arrival, [this] { arrive(0); });
  if (config_.faults)
    queue_.after(random_.exponential(static_cast<double>(shape_.fault_gap)), [this] { inject_fault(); });
  const Nanoseconds limit = (jobs_.empty() ? 0 : jobs_.back().arrival) + kHangLimit;
  Nanoseconds end = limit;
  while (!queue_.empty() && queue_.next_time() <= end) {
    queue_.step();
    const bool done = arrived_ == jobs_.size() && clients_.open() == 0;
    if (done && end == limit) end = queue_.now() + kSettleTime;
  }
  clients_.close();
  check_end();
  collect();
  return {totals_, clients_.violations(), trace_.value(), clients_.output_digest()};
}

void World::arrive(std::size_t index) {
  const Job& job = jobs_[index];
  clients_.submitted(job);
  std::optional<int> rank;
  if (random_.chance(shape_.pinned)) rank = static_cast<int>(random_.between(0, shape_.replicas - 1));
  const Result<void> submitted = router_.submit(job.request, rank);
  CHECK(submitted.ok(), "{}", submitted.error().message);
  if (job.abort_after) queue_.after(*job.abort_after, [this, id = job.request.id] { hang_up(id); });
  ++arrived_;
  if (index + 1 < jobs_.size()) queue_.at(jobs_[index + 1].arrival, [this, index] { arrive(index + 1); });
  pump();
}

void World::hang_up(RequestId request) {
  ++totals_.aborts;
  clients_.aborted(request);
  router_.abort(request);
  pump();
}

// Carries out what supervisor and router want, until they want nothing more.
void World::pump() {
  for (bool busy = true; busy;) {
    busy = false;
    for (const SupervisorAction& action : supervisor_.take_actions()) {
      busy = true;
      act(action);
    }
    for (RouterMessage& message : router_.take_messages()) {
      busy = true;
      send_to_replica(std::move(message));
    }
  }
  schedule_tick();
}

void World::act(const SupervisorAction& action) {
  const Placement replica = action.replica;
  trace_.add(queue_.now(), action.kind, replica.rank, replica.epoch);
  switch (action.kind) {
    case SupervisorAction::Kind::spawn:
      spawn(replica);
      break;
    case SupervisorAction::Kind::kill:
      kill(replica);
      break;
    case SupervisorAction::Kind::died: {
      ++totals_.deaths;
      died_[static_cast<std::size_t>(replica.rank)] = replica.epoch;
      router_.replica_died(replica);
      const auto accepts = [](const ReplicaLoad& load) { return load.accepting; };
      if (std::none_of(router_.loads().begin(), router_.loads().end(), accepts)) ++totals_.all_dead;
      check_counts();
      break;
    }
    case SupervisorAction::Kind::give_up:  // an operator comes and starts it again
      queue_.after(kSecond / 2, [this, rank = replica.rank] {
        supervisor_.start(rank, queue_.now());
        pump();
      });
      break;
  }
}

Nanoseconds World::delay() {
  const Nanoseconds usual = random_.exponential(static_cast<double>(shape_.delay_mean));
  return random_.chance(0.01) ? usual * 20 : usual;
}

void World::send_to_replica(RouterMessage message) {
  trace_.add(queue_.now(), message.kind, message.id.client, message.id.number, message.choice, message.to.rank,
             message.to.epoch);
  for (const ChoiceState& choice : message.request.choices) trace_.add(choice.index, choice.emitted.size());
  if (message.kind == RouterMessage::Kind::add && router_.ledger().deaths_seen(message.id) > 0) ++totals_.resubmissions;
  saboteur_.on_message(&message);
  Replica* const replica = find(message.to);
  replica->link_in_free = std::max(replica->link_in_free, queue_.now() + delay());
  queue_.at(replica->link_in_free, [this, replica, shared = std::make_shared<RouterMessage>(std::move(message))] {
    replica->receive(std::move(*shared));
    step_if_idle(replica);
  });
}

// Runs `arrival` when the bytes come in, unless they are lost with the process.
void World::send_to_front_end(Replica* replica, std::function<void()> arrival) {
  const std::uint64_t number = ++replica->frames_sent;
  replica->link_out_free = std::max(replica->link_out_free, queue_.now() + delay());
  queue_.at(replica->link_out_free, [this, replica, number, arrival = std::move(arrival)] {
    if (number > replica->frames_surviving) return;
    replica->frames_arrived = number;
    arrival();
    pump();
  });
}

void World::step_if_idle(Replica* replica) {
  if (replica->state != Replica::State::running || replica->stepping || !replica->has_work()) return;
  replica->stepping = true;
  const auto frame = std::make_shared<Frame>(replica->step());
  const Nanoseconds duration = shape_.step_time / 2 + random_.exponential(static_cast<double>(shape_.step_time) / 2);
  queue_.after(duration, [this, replica, frame] { step_done(replica, [this, frame] { receive(frame); }); });
}

void World::step_done(Replica* replica, std::function<void()> say) {
  replica->stepping = false;
  if (replica->state == Replica::State::stopped) replica->held = std::move(say);
  if (replica->state != Replica::State::running) return;
  send_to_front_end(replica, std::move(say));
  step_if_idle(replica);
}

void World::receive(const std::shared_ptr<Frame>& frame) {
  supervisor_.heartbeat(frame->from, queue_.now());
  for (TokenEvent& event : frame->events) receive_event(frame->from, &event);
  const Judgement judgement = router_.on_report(frame->from, frame->load);
  if (judgement.verdict == Verdict::faulty) clients_.report(&Violations::other, judgement.fault);
}

void World::receive_event(Placement from, TokenEvent* event) {
  Placement claimed = from;
  if (!saboteur_.on_event(router_.ledger(), &claimed, event)) return;
  const Judgement judgement = router_.on_event(claimed, event);
  trace_.add(queue_.now(), judgement.verdict, from.rank, from.epoch, event->request.client, event->request.number,
             event->choice, event->position, event->token.value_or(-1), event->finish);
  if (judgement.verdict == Verdict::faulty) {
    clients_.report(&Violations::other, judgement.fault);
    supervisor_.fault(claimed, queue_.now());
    pump();
    return;
  }
  if (judgement.verdict == Verdict::dropped) ++totals_.dropped;
  if (judgement.verdict == Verdict::dropped && !saboteur_.accepts_dropped(*event)) return;
  if (from.epoch <= died_[static_cast<std::size_t>(from.rank)]) {
    clients_.report(&Violations::other, fmt::format("request {}: rank {} epoch {} was listened to after its death",
                                                    event->request, from.rank, from.epoch));
  }
  if (clients_.deliver(*event)) router_.abort_choice(event->request, event->choice);
}

void World::schedule_tick() {
  const std::optional<Nanoseconds> deadline = supervisor_.next_deadline();
  if (!deadline || (tick_at_ != 0 && tick_at_ <= *deadline)) return;
  tick_at_ = std::max(*deadline, queue_.now());
  queue_.at(tick_at_, [this, planned = tick_at_] {
    if (planned == tick_at_) tick_at_ = 0;
    supervisor_.tick(queue_.now());
    pump();
  });
}

Outcome run_world(const WorldConfig& config) {
  return World(config).run();
}

}  // namespace chorus::sim
