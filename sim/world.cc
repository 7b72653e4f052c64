#include "world.h"

#include <algorithm>
#include <utility>

namespace chorus::sim {
namespace {

constexpr Nanoseconds microsecond = 1'000;
constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds second = 1'000'000'000;
constexpr Nanoseconds stuck_after = 300 * second;  // the last arrival
constexpr Nanoseconds settle_time = 5 * second;    // longer than any stop of a replica, and than a removal
constexpr Nanoseconds never = 1'000 * second;

SchedulerConfig draw_scheduler(Random* random) {
  SchedulerConfig config;
  config.vocab_size = vocab_size;
  config.max_model_len = max_model_len;
  config.eos_token_ids = {eos_token};
  config.max_num_seqs = static_cast<std::int32_t>(random->between(2, 16));
  config.max_num_batched_tokens = static_cast<std::int32_t>(random->between(config.max_num_seqs, 64));
  config.block_size = 1 << random->between(1, 4);
  config.plans_in_flight_max = static_cast<std::int32_t>(random->between(1, 4));
  config.kv_pools = 1 << random->between(0, 2);
  config.kv_pool_tokens = config.block_size * static_cast<std::int32_t>(random->between(1, 2));
  // A sequence alone must fit; many together must not, most of the time.
  const std::int32_t longest = prompt_max + static_cast<std::int32_t>(output_max);
  const std::int32_t sequence_blocks = (longest + config.block_size - 1) / config.block_size;
  std::int32_t needed = sequence_blocks;  // more when the pools' turns leave some blocks unused
  if (config.kv_pools == 1 && random->chance(0.4)) {
    config.kv_window.tables = static_cast<std::int32_t>(random->between(1, 3));
    config.kv_window.keys = static_cast<std::int32_t>(random->between(1, longest));
  }
  while (kv_shape(config).short_of(sequence_blocks, needed) >= 0) ++needed;
  config.kv_blocks =
      needed + static_cast<std::int32_t>(random->between(0, std::int64_t{needed} * (random->chance(0.7) ? 2 : 16)));
  config.enable_prefix_caching = random->chance(0.8);
  config.by_priority = random->chance(0.5);
  config.prefix_hash_key = {random->next(), random->next()};
  return config;
}

SupervisorLimits draw_supervisor(const WorldConfig& config, bool together, Random* random) {
  SupervisorLimits limits;
  limits.start_timeout = second;
  limits.heartbeat_timeout = 400 * millisecond;
  limits.kill_timeout = 200 * millisecond;
  limits.backoff_first = 20 * millisecond;
  limits.backoff_max = 500 * millisecond;
  limits.stable_after = second;
  const bool few = random->chance(0.1);  // a death is everybody's where they step together
  limits.restarts_max = config.restarts > 0 ? config.restarts : together && !few ? 1'000'000 : 4;
  return limits;
}

DispatcherLimits draw_limits(const SchedulerConfig& scheduler, Random* random) {
  DispatcherLimits limits;
  limits.requests_waiting_max = static_cast<std::size_t>(random->between(8, 64));
  limits.tokens_waiting_max = static_cast<std::size_t>(random->between(200, 2000));
  limits.sequences_per_replica_max = 2 * static_cast<std::uint32_t>(scheduler.max_num_seqs);
  limits.messages_waiting_max = static_cast<std::size_t>(random->between(2, 16));
  limits.events_waiting_max = 1024;
  return limits;
}

}  // namespace

void Totals::add(const Totals& other) {
  requests += other.requests;
  tokens += other.tokens;
  deaths += other.deaths;
  front_end_deaths += other.front_end_deaths;
  zombies += other.zombies;
  resubmissions += other.resubmissions;
  dropped += other.dropped;
  refused += other.refused;
  aborts += other.aborts;
  drains += other.drains;
  removals += other.removals;
  additions += other.additions;
  restarts += other.restarts;
  pauses += other.pauses;
  loans += other.loans;
  convicted += other.convicted;
  wrongly_convicted += other.wrongly_convicted;
  waves += other.waves;
  ends += other.ends;
  preemptions += other.preemptions;
  cache_hits += other.cache_hits;
  most_in_flight = std::max(most_in_flight, other.most_in_flight);
  pooled += other.pooled;
}

World::Shape World::draw_shape(const WorldConfig& config, Random* random) {
  Shape shape;
  const auto front_ends = static_cast<int>(random->between(1, 4));
  const auto replicas = static_cast<int>(random->between(1, 8));
  shape.front_ends = config.front_ends > 0 ? config.front_ends : front_ends;
  shape.replicas = config.replicas > 0 ? config.replicas : replicas;
  shape.together = (random->chance(0.2) || config.together) && shape.replicas > 1;
  shape.scheduler = draw_scheduler(random);
  shape.balancer = every_load_balancer[random->between(0, std::int64_t{std::size(every_load_balancer)} - 1)];
  shape.limits = draw_limits(shape.scheduler, random);
  shape.supervisor = draw_supervisor(config, shape.together, random);
  shape.drain_timeout = random->chance(0.2) ? 300 * millisecond : never;
  shape.step_time = random->between(500, 4000) * microsecond;
  shape.delay_mean = random->between(20, 2000) * microsecond;
  shape.fault_gap = random->between(60, 600) * millisecond * (shape.together ? 4 : 1);
  shape.operation_gap = random->between(100, 1000) * millisecond;
  if (config.operation_gap > 0) shape.operation_gap = config.operation_gap;
  shape.wished = random->chance(0.3) ? 0.5 : 0;
  return shape;
}

CoordinatorConfig World::coordinator_config() const {
  CoordinatorConfig config;
  config.supervisor = shape_.supervisor;
  config.step_together = shape_.together;
  config.drain_timeout = shape_.drain_timeout;
  config.planted = config_.planted;
  return config;
}

World::World(const WorldConfig& config)
    : config_(config),
      random_(config.seed ^ 0xC0FFEE),
      shape_(draw_shape(config, &random_)),
      jobs_(make_workload(config.seed, config.requests, Random(config.seed ^ 0xA44).between(1, 8) * millisecond,
                          config.poison ? 0.002 : 0)),
      coordinator_(coordinator_config()),
      oracle_model_(toy_config(shape_.scheduler)),
      clients_(&oracle_model_) {}

Outcome World::run() {
  for (int i = 0; i < shape_.replicas; ++i) {
    CHECK(coordinator_.add_replica(ReplicaOrigin::spawned, queue_.now()).ok(), "replica {}", i);
    died_.push_back(0);
  }
  for (int i = 0; i < shape_.front_ends; ++i) start_front_end();
  if (!jobs_.empty()) queue_.at(jobs_.front().arrival, [this] { arrive(0); });
  if (config_.faults) {
    queue_.after(random_.exponential(static_cast<double>(shape_.fault_gap)), [this] { inject_fault(); });
    queue_.after(random_.exponential(static_cast<double>(shape_.operation_gap)), [this] { operate(); });
  }
  pump();
  const Nanoseconds limit = (jobs_.empty() ? 0 : jobs_.back().arrival) + stuck_after;
  Nanoseconds end = limit;
  while (!queue_.empty() && queue_.next_time() <= end) {
    queue_.step();
    const bool done = over_ || (arrived_ == jobs_.size() && retrying_ == 0 && clients_.open() == 0);
    if (done && end == limit) end = queue_.now() + settle_time;
  }
  clients_.close();
  check_end();
  collect();
  return {totals_, clients_.violations(), trace_.value()};
}

// Its connection to the parent begins with all that there is to know.
void World::start_front_end() {
  DispatcherConfig config;
  config.client = next_client_++;
  config.by_priority = shape_.scheduler.by_priority;
  config.limits = shape_.limits;
  config.planted = config_.planted;
  front_ends_.push_back(std::make_unique<FrontEnd>(config, make_load_balancer(shape_.balancer)));
  FrontEnd* const front_end = front_ends_.back().get();
  for (const ReplicaNews& news : coordinator_.client_joined(front_end->id)) send_news(front_end, news);
}

std::vector<FrontEnd*> World::living_front_ends() {
  std::vector<FrontEnd*> living;
  for (const auto& front_end : front_ends_) {
    if (front_end->alive) living.push_back(front_end.get());
  }
  return living;
}

FrontEnd* World::find_front_end(ClientId client) {
  return front_ends_.at(client).get();
}

void World::arrive(std::size_t index) {
  ++arrived_;
  if (over_) return;
  submit(jobs_[index], 20 * millisecond);
  if (index + 1 < jobs_.size()) queue_.at(jobs_[index + 1].arrival, [this, index] { arrive(index + 1); });
  pump();
}

// To any front end that lives; one that is refused, or finds none, comes again.
void World::submit(const Job& job, Nanoseconds patience) {
  const auto come_again = [&] {
    ++totals_.refused;
    ++retrying_;
    queue_.after(patience, [this, &job, patience] {
      --retrying_;
      if (over_) return;
      submit(job, std::min(2 * patience, 5'000 * millisecond));
      pump();
    });
  };
  const std::vector<FrontEnd*> living = living_front_ends();
  if (living.empty()) return come_again();
  FrontEnd* const front_end = living[random_.next() % living.size()];
  Dispatcher& dispatcher = front_end->dispatcher;
  std::optional<int> wish;
  if (random_.chance(shape_.wished)) wish = static_cast<int>(random_.between(0, coordinator_.replicas() - 1));
  const bool full = dispatcher.waiting() >= shape_.limits.requests_waiting_max;
  const Result<RequestId> id = dispatcher.submit(job.request, wish);
  if (!id.ok()) {
    CHECK(id.error().code == ErrorCode::resource_exhausted, "{}", id.error().message);
    return come_again();
  }
  if (full)
    violation(
        fmt::format("{} requests wait, {} is the limit", dispatcher.waiting(), shape_.limits.requests_waiting_max));
  clients_.submitted(*id, job);
  if (!wish) {
    const FrontEnd::Order order{shape_.scheduler.by_priority ? job.request.priority : 0, front_end->admissions++};
    front_end->waiting[order] = *id;
    front_end->orders[*id] = order;
  }
  check_order(front_end);
  if (job.abort_after) queue_.after(*job.abort_after, [this, request = *id] { hang_up(request); });
}

void World::hang_up(RequestId request) {
  FrontEnd* const front_end = find_front_end(request.client);
  if (!front_end->alive) return;
  ++totals_.aborts;
  clients_.aborted(request);
  front_end->dispatcher.abort(request);
  pump();
}

// Carries out what the Coordinator and the Dispatchers want, until they want nothing more.
void World::pump() {
  for (bool busy = true; busy;) {
    busy = false;
    for (const ReplicaNews& news : coordinator_.take_news()) {
      busy = true;
      tell_front_ends(news);
    }
    for (const CoordinatorAction& action : coordinator_.take_actions()) {
      busy = true;
      act(action);
    }
  }
  for (FrontEnd* const front_end : living_front_ends()) serve(front_end);
  check_drained();
  schedule_tick();
  if (over_ || !coordinator_.is_over(queue_.now())) return;
  over_ = true;  // the host ends with an error, and all that waits with it
  ++totals_.ends;
  clients_.cluster_is_over();
}

void World::tell_front_ends(const ReplicaNews& news) {
  const Placement replica = news.replica;
  trace_.add(queue_.now(), news.state, replica.rank, replica.epoch, news.move);
  if (news.state == ReplicaNews::State::died) {
    ++totals_.deaths;
    died_[static_cast<std::size_t>(replica.rank)] = replica.epoch;
  }
  if (news.state == ReplicaNews::State::removed) removing_.erase(replica.rank);
  if (news.state == ReplicaNews::State::lent) ++totals_.loans;
  for (FrontEnd* const front_end : living_front_ends()) send_news(front_end, news);
}

void World::send_news(FrontEnd* front_end, const ReplicaNews& news) {
  front_end->news_free = std::max(front_end->news_free, queue_.now() + delay());
  queue_.at(front_end->news_free, [this, front_end, news] {
    if (!front_end->alive) return;
    hear(front_end, news);
    pump();
  });
}

void World::hear(FrontEnd* front_end, const ReplicaNews& news) {
  const int rank = news.replica.rank;
  Dispatcher& dispatcher = front_end->dispatcher;
  const std::vector<RequestId> there = dispatcher.ledger().requests_at(news.replica);
  dispatcher.on_news(news);
  if (dispatcher.is_ready(news.replica)) front_end->replicas.insert(rank);
  if (news.state == ReplicaNews::State::died) {
    front_end->replicas.erase(rank);
    front_end->died[rank] = news.replica.epoch;
  }
  if (news.move || news.state == ReplicaNews::State::died) {
    for (const RequestId request : there) {
      if (!dispatcher.ledger().contains(request)) {
        check_conviction(news, request);
      } else if (const auto order = front_end->orders.find(request); order != front_end->orders.end()) {
        front_end->waiting[order->second] = request;
      }
    }
  }
  check_order(front_end);
}

void World::act(const CoordinatorAction& action) {
  trace_.add(queue_.now(), action.kind, action.replica.rank, action.replica.epoch, action.number);
  switch (action.kind) {
    case CoordinatorAction::Kind::spawn:
      spawn(action);
      break;
    case CoordinatorAction::Kind::kill:
      kill(action.replica);
      break;
    case CoordinatorAction::Kind::begin_wave:
      begin_wave(action.replica, action.number);
      break;
    case CoordinatorAction::Kind::give_up:
      // An operator puts another one in its place. A world is given up as a whole.
      if (shape_.together || removing_.contains(action.replica.rank)) break;
      if (coordinator_.state(action.replica.rank) == ReplicaState::removed) break;
      queue_.after(second / 2, [this, rank = action.replica.rank] {
        if (coordinator_.state(rank) != ReplicaState::given_up || removing_.contains(rank)) return;
        removing_.insert(rank);
        CHECK(coordinator_.remove(rank, false, queue_.now()).ok(), "replica {}", rank);
        CHECK(coordinator_.add_replica(ReplicaOrigin::spawned, queue_.now()).ok(), "replica {}", rank);
        died_.push_back(0);
        ++totals_.additions;
        pump();
      });
      break;
  }
}

// What its Dispatcher wants: messages as far as each connection takes them, notes, events for its clients.
void World::serve(FrontEnd* front_end) {
  constexpr std::size_t unread_max = 8;
  Dispatcher& dispatcher = front_end->dispatcher;
  check_bounds(*front_end);
  for (const int rank : std::set<int>(front_end->replicas)) {
    Replica* const replica = find({rank, 0});
    while (dispatcher.is_ready(replica->placement()) && replica->links[front_end->id].unread < unread_max) {
      auto message = dispatcher.take_message(replica->placement());
      if (!message) break;
      send_to_replica(front_end, replica, std::move(*message));
    }
  }
  for (const ClientNote& note : dispatcher.take_notes()) {
    trace_.add(queue_.now(), front_end->id, note.kind, note.replica.rank, note.replica.epoch);
    front_end->notes_free = std::max(front_end->notes_free, queue_.now() + delay());
    queue_.at(front_end->notes_free, [this, front_end, note] {
      if (!front_end->alive) return;
      coordinator_.on_note(front_end->id, note, queue_.now());
      pump();
    });
  }
  deliver(front_end);
}

void World::deliver(FrontEnd* front_end) {
  Dispatcher& dispatcher = front_end->dispatcher;
  while (dispatcher.has_events() && !over_) {
    std::vector<FleetEvent> events;
    dispatcher.take_events(&events);
    for (const FleetEvent& event : events) {
      if (clients_.deliver(event.event)) dispatcher.abort_choice(event.event.request, event.event.choice);
    }
  }
  check_order(front_end);
}

Nanoseconds World::delay() {
  const Nanoseconds usual = random_.exponential(static_cast<double>(shape_.delay_mean));
  return random_.chance(0.01) ? usual * 20 : usual;
}

void World::schedule_tick() {
  const std::optional<Nanoseconds> deadline = coordinator_.next_deadline();
  if (!deadline || (tick_at_ != 0 && tick_at_ <= *deadline)) return;
  tick_at_ = std::max(*deadline, queue_.now());
  queue_.at(tick_at_, [this, planned = tick_at_] {
    if (planned == tick_at_) tick_at_ = 0;
    coordinator_.tick(queue_.now());
    pump();
  });
}

Outcome run_world(const WorldConfig& config) {
  return World(config).run();
}

}  // namespace chorus::sim
