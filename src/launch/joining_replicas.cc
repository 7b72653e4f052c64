#include "launch/joining_replicas.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/fleet_setup.h"
#include "worker/child_start.h"
#include "worker/cluster_fingerprint.h"

namespace chorus {
namespace {

constexpr Nanoseconds log_interval = 10'000'000'000;
constexpr std::size_t contact_bytes_max = 1024;

}  // namespace

JoiningReplicas::~JoiningReplicas() = default;

bool JoiningReplicas::starts(int rank) const {
  const int first = parallel_.data_parallel_start_rank;
  return rank >= first && rank < first + own_replicas_;
}

Result<void> JoiningReplicas::prepare(const FleetSetup& setup, const ModelConfig& model, EngineConfig* config) {
  if (config->parallel.workers_join_singly()) {
    own_replicas_ = config->parallel.local_replicas();
    workers_ = config->parallel.replica_size();
    // This machine's come as another node's do.
    config->parallel.all_remote = true;
    contacts_.resize(static_cast<std::size_t>(config->parallel.world_size()));
  }
  parallel_ = config->parallel;
  start_timeout_ = setup.supervisor.start_timeout;
  const auto ranks = static_cast<std::size_t>(parallel_.data_parallel_size);
  joined_.resize(ranks * static_cast<std::size_t>(workers_));
  followers_.resize(ranks);
  CHORUS_TRY(listener_, NodeListener::listen(*config));
  if (own_replicas_ > 0) start_own_node(setup, model, *config);
  return {};
}

void JoiningReplicas::open(SourceHost* host, const EngineConfig& config, const ModelConfig& model,
                           const LoadedWeights& weights) {
  host_ = host;
  listener_->set_fingerprint(cluster_fingerprint(config, model, weights));
  const Nanoseconds now = monotonic_now();
  missing_deadline_ = now + start_timeout_;
  missing_log_at_ = now + log_interval;
  log(LogLevel::info, "Waiting for ranks {} of other nodes at {}", missing_ranks(), address().text());
}

void JoiningReplicas::start_own_node(const FleetSetup& setup, const ModelConfig& model, EngineConfig config) {
  config.headless = true;
  config.parallel.all_remote = false;
  config.parallel.data_parallel_size_local = own_replicas_;
  config.parallel.data_parallel_rpc_port = address().port();
  own_node_ = std::make_unique<OwnNode>(config, model,
                                        RemoteNodeSetup{setup.load_weights, setup.interrupted, setup.engine_program});
}

// Ranks 2, 3 and 5 as "2, 3, 5".
std::string JoiningReplicas::missing_ranks() const {
  std::string text;
  for (int rank = 0; rank < host_->ranks(); ++rank) {
    if (brings(rank) && !host_->was_ready(rank)) text += fmt::format("{}{}", text.empty() ? "" : ", ", rank);
  }
  return text;
}

// ": rank 0 lacks workers 1, 3; rank 2 lacks workers 1".
std::string JoiningReplicas::missing_workers() const {
  std::string text;
  for (int rank = 0; rank < host_->ranks() && workers_ > 1; ++rank) {
    std::string workers;
    for (int worker = 0; worker < workers_; ++worker) {
      if (!joined_[slot(rank, worker)]) workers += fmt::format("{}{}", workers.empty() ? "" : ", ", worker);
    }
    if (workers.empty() || host_->link(rank) != nullptr) continue;
    text += fmt::format("{}rank {} lacks workers {}", text.empty() ? ": " : "; ", rank, workers);
  }
  return text;
}

// Who is missing, now and then, and at last as an error.
Result<void> JoiningReplicas::check_start(Nanoseconds now) {
  if (own_node_ && own_node_->failure() != nullptr) return *own_node_->failure();
  // A start's time begins when this machine's weights are there.
  if (own_node_ && !own_node_->loaded()) missing_deadline_ = now + start_timeout_;
  if (now < missing_log_at_ && now < missing_deadline_) return {};
  const std::string ranks = missing_ranks();
  if (ranks.empty()) return {};
  const std::string because = missing_because_ ? ": " + missing_because_() : "";
  if (now >= missing_deadline_) {
    const std::string& refused = listener_->last_refusal();
    return fail(ErrorCode::deadline_exceeded, "ranks {} did not come within {} ms (--engine-start-timeout-ms){}{}{}",
                ranks, start_timeout_ / 1'000'000, missing_workers(), because,
                refused.empty() ? "" : "; the last connection that was refused: " + refused);
  }
  missing_log_at_ = now + log_interval;
  if (!because.empty()) {
    log(LogLevel::warning, "Ranks {} are missing{}", ranks, because);
  } else {
    log(LogLevel::warning,
        "Ranks {} are missing{}: start their nodes with chorus serve --headless and --data-parallel-rpc-port {}", ranks,
        missing_workers(), address().port());
  }
  return {};
}

Result<ReplicaLink> JoiningReplicas::begin(Placement replica, std::uint64_t world) {
  const std::string welcome = encode(welcome_of(replica, world));
  followers(replica.rank).clear();
  for (int worker = 1; worker < workers_; ++worker) {
    followers(replica.rank).push_back(ReplicaLink::adopt(replica, std::move(joined(replica.rank, worker))));
    followers(replica.rank).back().post(MessageType::welcome, welcome);
  }
  auto engine = ReplicaLink::adopt(replica, std::move(joined(replica.rank, 0)));
  engine.post(MessageType::welcome, welcome);
  return engine;
}

WelcomeMessage JoiningReplicas::welcome_of(Placement replica, std::uint64_t world) const {
  return {first_world_ + (world > 0 ? world : replica.epoch)};
}

// Its node adds what is its own business: cores, threads, memory.
void JoiningReplicas::configure(ReplicaLink* engine) {
  engine->post(MessageType::config, encode(host_->engine_start(engine->replica())));
}

// Their nodes end these workers and bring new ones.
void JoiningReplicas::ended(Placement replica) {
  followers(replica.rank).clear();
  const auto size = static_cast<std::size_t>(parallel_.replica_size());
  for (std::size_t worker = 0; worker < size && !contacts_.empty(); ++worker) {
    contacts_[static_cast<std::size_t>(replica.rank) * size + worker].clear();
  }
}

void JoiningReplicas::append_descriptors(std::vector<pollfd>* items) const {
  listener_->append_descriptors(items);
  for (const auto& connection : joined_) {
    if (connection) items->push_back({connection->fd(), POLLIN, 0});
  }
  for (const auto& of_rank : followers_) {
    for (const ReplicaLink& follower : of_rank) items->push_back(follower.poll_item());
  }
}

std::optional<Nanoseconds> JoiningReplicas::next_deadline() const {
  return listener_->next_deadline();
}

std::vector<SourceEvent> JoiningReplicas::advance(Nanoseconds now) {
  std::vector<SourceEvent> events;
  for (int rank = 0; rank < host_->ranks(); ++rank) read_followers(rank, &events);
  watch_joined(&events);
  take_newcomers(now, &events);
  return events;
}

void JoiningReplicas::take_newcomers(Nanoseconds now, std::vector<SourceEvent>* events) {
  for (NodeListener::Joined& comer :
       listener_->take(now, [&](int rank, int worker) { return objection(rank, worker); })) {
    log(LogLevel::info, "Node {} brings worker rank {}{}", comer.node, comer.rank,
        workers_ > 1 ? fmt::format(" worker {}", comer.worker) : "");
    joined(comer.rank, comer.worker) = std::move(comer.connection);
    if (all_joined(comer.rank)) events->push_back({SourceEvent::Kind::joined, comer.rank, {}});
  }
}

// Why this place is not free; empty: it is.
std::string JoiningReplicas::objection(int rank, int worker) const {
  const ReplicaState state = host_->state(rank);
  if (state != ReplicaState::stopped && state != ReplicaState::given_up) {
    return fmt::format("rank {} is there already", rank);
  }
  return joined_[slot(rank, worker)] ? fmt::format("worker {} of rank {} is there already", worker, rank) : "";
}

bool JoiningReplicas::all_joined(int rank) const {
  const auto first = joined_.begin() + static_cast<std::ptrdiff_t>(slot(rank, 0));
  return std::all_of(first, first + workers_, [](const auto& connection) { return connection != nullptr; });
}

// Workers that wait for others have nothing to say: what there is to read is their end.
void JoiningReplicas::watch_joined(std::vector<SourceEvent>* events) {
  for (auto& connection : joined_) {
    if (!connection) continue;
    const auto frame = connection->receive();
    if (frame.ok() && !frame->has_value()) continue;
    const auto slot = static_cast<int>(&connection - joined_.data());
    log(LogLevel::warning, "Worker rank {} worker {} is gone before the others of its replica came{}", slot / workers_,
        slot % workers_, frame.ok() ? "" : ": " + frame.error().message);
    connection.reset();
    events->push_back({SourceEvent::Kind::left, slot / workers_, {}});
  }
}

// Until the first of them is gone: the host ends the others.
void JoiningReplicas::read_followers(int rank, std::vector<SourceEvent>* events) {
  const ReplicaLink* const engine = host_->link(rank);
  if (engine == nullptr || !engine->connected()) return;
  for (std::size_t i = 0; i < followers(rank).size(); ++i) {
    ReplicaLink& follower = followers(rank)[i];
    const int worker = static_cast<int>(i) + 1;
    follower.pump();
    for (auto frame = follower.receive(); !frame.ok() || frame->has_value(); frame = follower.receive()) {
      const std::size_t before = events->size();
      const auto handled = frame.ok() ? handle(engine->replica(), worker, **frame, events) : frame.error();
      if (!handled.ok()) {
        events->push_back(
            {SourceEvent::Kind::broken, rank, fmt::format("worker {}: {}", worker, handled.error().message)});
      }
      if (events->size() > before) return;
    }
  }
}

Result<void> JoiningReplicas::handle(Placement replica, int worker, const Frame& frame,
                                     std::vector<SourceEvent>* events) {
  ReplicaLink& follower = followers(replica.rank)[static_cast<std::size_t>(worker - 1)];
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::hello: {
      CHORUS_TRY_VOID(follower.take_hello(frame));
      const WorkerStart begin{host_->engine_start(replica), replica.rank * parallel_.replica_size() + worker};
      follower.post(MessageType::config, encode(begin));
      return {};
    }
    case MessageType::contact:
      return note_contact(replica.rank, worker, frame);
    case MessageType::ready:
      return {};
    case MessageType::fatal: {
      CHORUS_TRY(FatalMessage words, decode_fatal(frame.payload));
      events->push_back(
          {SourceEvent::Kind::broken, replica.rank, fmt::format("failed in its worker {}", worker), std::move(words)});
      return {};
    }
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that a worker sends", frame.type);
  }
}

Result<void> JoiningReplicas::take_contact(Placement replica, const Frame& frame) {
  return note_contact(replica.rank, 0, frame);
}

Result<void> JoiningReplicas::note_contact(int rank, int worker, const Frame& frame) {
  CHORUS_TRY(ContactMessage message, decode_contact(frame.payload));
  const int number = rank * parallel_.replica_size() + worker;
  const auto place = static_cast<std::size_t>(number);
  if (contacts_.empty() || !contacts_[place].empty()) return fail(ErrorCode::invalid_argument, "CONTACT out of turn");
  if (message.contact.empty() || message.contact.size() > contact_bytes_max) {
    return fail(ErrorCode::invalid_argument, "a contact of {} bytes; accepted: 1 to {}", message.contact.size(),
                contact_bytes_max);
  }
  contacts_[place] = std::move(message.contact);
  form_world(rank);
  return {};
}

// Once all contacts of the rank's world are there.
void JoiningReplicas::form_world(int rank) {
  const int size = parallel_.replica_size();
  const bool together = parallel_.replicas_step_together();
  const int first = together ? 0 : rank, last = together ? host_->ranks() : rank + 1;
  const int begin = first * size, end = last * size;
  const WorldMessage world{{contacts_.begin() + begin, contacts_.begin() + end}};
  if (std::ranges::any_of(world.contacts, &std::string::empty)) return;
  const std::string message = encode(world);
  for (int member = first; member < last; ++member) {
    host_->link(member)->post(MessageType::world, message);
    for (ReplicaLink& follower : followers(member)) follower.post(MessageType::world, message);
  }
}

void JoiningReplicas::shut_down() {
  for (auto& of_rank : followers_) {
    for (ReplicaLink& follower : of_rank) {
      follower.post(MessageType::shutdown, {});
      // TCP throws away what was sent last where something that was received is left unread.
      for (auto frame = follower.receive(); frame.ok() && frame->has_value();) frame = follower.receive();
      follower.disconnect();
    }
  }
  for (auto& waiting : joined_) {
    if (waiting) (void)send_message(waiting.get(), MessageType::shutdown, 0, {}).ok();
  }
  joined_.clear();
  listener_.reset();
}

}  // namespace chorus
