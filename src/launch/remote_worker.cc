#include "launch/remote_worker.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/log.h"
#include "exec/worker_groups.h"
#include "parallel/topology.h"
#include "worker/child_start.h"
#include "worker/process_main.h"

namespace chorus {
namespace {

constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds second = 1000 * millisecond;
constexpr Nanoseconds attempt_timeout = 10 * second;  // of one connection, and of the answer to JOIN
constexpr Nanoseconds connect_again_after = 200 * millisecond;
constexpr Nanoseconds join_again_after = second;
constexpr int last_words_timeout_ms = 1'000;
constexpr int exit_after_close_ms = 100;
// Bytes that may wait on one side before no more are read on the other.
constexpr std::size_t relay_bytes_max = std::size_t{32} << 20;

SupervisorLimits restarts_alone() {
  constexpr Nanoseconds never = std::numeric_limits<Nanoseconds>::max() / 2;
  SupervisorLimits limits;
  limits.start_timeout = limits.heartbeat_timeout = never;
  return limits;
}

pollfd item_of(const Connection& connection, const Connection& other) {
  int wanted = other.queued_bytes() <= relay_bytes_max ? POLLIN : 0;
  if (connection.queued_bytes() > 0) wanted |= POLLOUT;
  return {connection.fd(), static_cast<short>(wanted), 0};
}

}  // namespace

RemoteWorker::RemoteWorker(int rank, int worker, RemoteNodeContext* node, Nanoseconds now)
    : rank_(rank),
      worker_(worker),
      name_(fmt::format("rank {}", rank)),
      node_(node),
      head_seen_at_(now),
      supervisor_(restarts_alone()) {
  supervisor_.add(true);
  supervisor_.start(0, now);
  if (node->config.parallel.workers_join_singly()) name_ += fmt::format(" worker {}", worker);
}

void RemoteWorker::advance(Nanoseconds now) {
  if (over()) return;
  switch (state_) {
    case State::waiting:
      if (now >= deadline_) connect(now);
      break;
    case State::connecting:
      connect(now);
      break;
    case State::joining:
      join(now);
      break;
    case State::running:
      relay(now);
      break;
    case State::done:
      break;
  }
}

void RemoteWorker::append_descriptors(std::vector<pollfd>* items) const {
  if (over()) return;
  if (state_ == State::connecting) items->push_back(connector_->wanted());
  if (state_ == State::joining) items->push_back({head_->fd(), POLLIN, 0});
  if (state_ != State::running) return;
  items->push_back({process_.pidfd(), POLLIN, 0});
  items->push_back(item_of(*head_, *inner_));
  items->push_back(item_of(*inner_, *head_));
}

std::optional<Nanoseconds> RemoteWorker::next_deadline() const {
  if (over() || state_ == State::running) return std::nullopt;
  return deadline_;
}

void RemoteWorker::connect(Nanoseconds now) {
  if (state_ == State::waiting) {
    supervisor_.tick(now);  // its back-off may be over
    (void)supervisor_.take_actions();
    state_ = State::connecting;
    deadline_ = now + attempt_timeout;
    connector_.emplace(node_->head, node_->key, deadline_);
  }
  auto made = connector_->advance(now);
  if (made.ok() && !*made) return;
  connector_.reset();
  if (!made.ok()) {
    if (made.error().code == ErrorCode::invalid_argument) return give_up(made.error());
    if (now - head_seen_at_ >= Nanoseconds{node_->config.engine_start_timeout_ms} * millisecond) {
      return give_up(fail(ErrorCode::deadline_exceeded, "no connection to the head within {} ms: {}",
                          node_->config.engine_start_timeout_ms, made.error().message));
    }
    return try_again(connect_again_after, now);
  }
  head_ = std::move(*made);
  head_seen_at_ = now;
  const JoinMessage message{rank_, worker_, node_->node_name, node_->fingerprint};
  if (auto sent = send_message(head_.get(), MessageType::join, 0, encode(message)); !sent.ok())
    return lose_head(sent.error(), now);
  state_ = State::joining;
  // A head that brings workers together answers when it has all of them, and gives up by itself.
  deadline_ = now + attempt_timeout;
  if (node_->config.parallel.workers_join_singly()) {
    deadline_ += Nanoseconds{node_->config.engine_start_timeout_ms} * millisecond;
  }
}

void RemoteWorker::join(Nanoseconds now) {
  auto frame = head_->receive();
  if (!frame.ok()) return lose_head(frame.error(), now);
  if (!frame->has_value()) {
    // A head that still loads its weights answers when it is through.
    if (now >= deadline_) lose_head(fail(ErrorCode::deadline_exceeded, "no answer to JOIN"), now);
    return;
  }
  if ((*frame)->type == static_cast<std::uint8_t>(MessageType::welcome)) return start_process(**frame, now);
  if ((*frame)->type == static_cast<std::uint8_t>(MessageType::shutdown)) {  // before the others have come
    told_to_end_ = true;
    end_incarnation();
    state_ = State::done;
    return;
  }
  const auto refusal = decode_fatal((*frame)->payload);
  if ((*frame)->type != static_cast<std::uint8_t>(MessageType::fatal) || !refusal.ok()) {
    return lose_head(fail(ErrorCode::unavailable, "message of type {} where WELCOME was to come", (*frame)->type), now);
  }
  end_incarnation();
  if (refusal->code == ErrorCode::invalid_argument) {
    return give_up(fail(refusal->code, "the head refuses this node: {}", refusal->message));
  }
  log(LogLevel::warning, "Worker {}: the head refuses it for now: {}", name_, refusal->message);
  try_again(join_again_after, now);
}

void RemoteWorker::start_process(const Frame& welcome, Nanoseconds now) {
  epoch_ = welcome.epoch;
  said_last_words_ = false;
  const auto started = [&]() -> Result<void> {
    CHORUS_TRY(const WelcomeMessage message, decode_welcome(welcome.payload));
    world_ = message.world;
    CHORUS_TRY(auto sockets, make_socket_pair());
    CHORUS_TRY(inner_, make_socket_connection(std::move(sockets.first)));
    const ParallelConfig& parallel = node_->config.parallel;
    CHORUS_TRY(const Topology topology, Topology::create(parallel, parallel.world_size()));
    const std::string name = worker_ == 0
                                 ? fmt::format("chorus engine dp={}", rank_)
                                 : "chorus worker " + worker_name(topology, rank_ * parallel.replica_size() + worker_);
    CHORUS_TRY(process_, ChildProcess::spawn_program(node_->engine_program, name, sockets.second, engine_socket_fd));
    return {};
  }();
  if (!started.ok()) {
    end_incarnation();
    return give_up(started.error());
  }
  state_ = State::running;
  relay(now);
}

void RemoteWorker::relay(Nanoseconds now) {
  const auto from_head = relay_to_process();
  auto from_engine = relay_to_head(now);
  // The socket closes a moment before the process is gone.
  if (const auto status = process_.reap(from_engine.ok() ? 0 : exit_after_close_ms)) return process_ended(*status, now);
  if (!from_head.ok()) return lose_head(from_head.error(), now);
  if (!from_engine.ok()) {
    process_.kill();
    if (const auto status = process_.reap(last_words_timeout_ms)) process_ended(*status, now);
  }
}

// An error is the process's alone; the head's is found by relay_to_process().
Result<void> RemoteWorker::relay_to_head(Nanoseconds now) {
  (void)head_->flush().ok();
  while (head_->queued_bytes() <= relay_bytes_max) {
    CHORUS_TRY(std::optional<Frame> frame, inner_->receive());
    if (!frame) return {};
    const auto type = static_cast<MessageType>(frame->type);
    if (type == MessageType::ready) supervisor_.ready(life(), now);
    if (type == MessageType::fatal) said_last_words_ = true;
    (void)head_->send(frame->type, frame->epoch, std::move(frame->payload)).ok();
  }
  return {};
}

// An error is the head's alone; the process's is found by relay_to_head().
Result<void> RemoteWorker::relay_to_process() {
  (void)inner_->flush().ok();
  while (inner_->queued_bytes() <= relay_bytes_max) {
    CHORUS_TRY(std::optional<Frame> frame, head_->receive());
    if (!frame) return {};
    if (frame->epoch != epoch_) continue;
    const auto type = static_cast<MessageType>(frame->type);
    if (type == MessageType::shutdown) told_to_end_ = true;
    if (type == MessageType::config) {
      CHORUS_TRY_VOID(configure(*frame));
    } else if (type == MessageType::world) {
      CHORUS_TRY(const int memory, node_->worlds.descriptor(rank_, world_));
      (void)inner_->send(frame->type, frame->epoch, std::move(frame->payload), memory).ok();
    } else {
      (void)inner_->send(frame->type, frame->epoch, std::move(frame->payload)).ok();
    }
  }
  return {};
}

Result<void> RemoteWorker::configure(const Frame& frame) {
  std::string payload;
  if (worker_ == 0) {
    CHORUS_TRY(EngineStart start, decode_engine_start(frame.payload));
    CHORUS_TRY_VOID(complete(&start));
    payload = encode(start);
  } else {
    CHORUS_TRY(WorkerStart begin, decode_worker_start(frame.payload));
    CHORUS_TRY_VOID(complete(&begin.start));
    payload = encode(begin);
  }
  return inner_->send(frame.type, frame.epoch, std::move(payload), node_->weights.arena.fd());
}

// The head's configuration, with what is this machine's own: weights, cores, memory, address.
Result<void> RemoteWorker::complete(EngineStart* start) const {
  const ParallelConfig& parallel = node_->config.parallel;
  const int first = (rank_ - parallel.data_parallel_start_rank) * parallel.workers_per_node();
  start->config.model = node_->config.model;
  start->model.directory = node_->model.directory;
  start->kv_cache_bytes = node_->kv_cache_bytes;
  start->threads = node_->threads;
  start->worker_cpus.clear();
  if (!node_->cpu_sets.empty()) {
    start->worker_cpus.resize(static_cast<std::size_t>(parallel.replica_size()));
    for (int worker = 0; worker < parallel.workers_per_node(); ++worker) {
      const int of_replica = parallel.first_local_worker() + worker, of_node = first + worker;
      start->worker_cpus[static_cast<std::size_t>(of_replica)] = node_->cpu_sets[static_cast<std::size_t>(of_node)];
    }
  }
  start->shard_offsets = node_->weights.shard_offsets;
  start->isa = node_->weights.isa;
  start->dtype = node_->weights.dtype;
  if (!parallel.workers_join_singly()) return {};
  CHORUS_TRY(const tcp::Address here, tcp::local_address(head_->fd()));
  start->world_address = here.host();
  start->world_key_file = node_->config.cluster_key_file;
  start->world_neighbours = node_->worlds.members(rank_);
  return {};
}

void RemoteWorker::process_ended(const ExitStatus& status, Nanoseconds now) {
  // What it said before its end is still the head's.
  while (relay_to_head(now).ok() && head_->queued_bytes() > relay_bytes_max) {
    if (!flush_within(head_.get(), last_words_timeout_ms).ok()) break;
  }
  // A worker that ended normally was told to by its engine, and the engine by the head: the head's message for this
  // worker is on its way.
  const bool in_order = worker_ > 0 && status.signal == 0 && status.code == exit_ok;
  while (in_order && !told_to_end_ && monotonic_now() - now < last_words_timeout_ms * millisecond) {
    if (!relay_to_process().ok() || !head_->wait(last_words_timeout_ms).ok()) break;
  }
  if (told_to_end_) {
    (void)flush_within(head_.get(), last_words_timeout_ms).ok();
    end_incarnation();
    state_ = State::done;
    return;
  }
  const std::string how =
      fmt::format("on node {} (pid {}) {}", node_->node_name, process_.last_pid(), describe(status));
  log(LogLevel::warning, "Worker {} {}", name_, how);
  if (!said_last_words_) {
    const FatalMessage words{ErrorCode::unavailable, how};
    (void)send_message(head_.get(), MessageType::fatal, epoch_, encode(words)).ok();
  }
  (void)flush_within(head_.get(), last_words_timeout_ms).ok();
  // Closing a socket with unread input resets the connection, and a reset overtakes the words that are still on the
  // way.
  for (auto unread = head_->receive(); unread.ok() && unread->has_value(); unread = head_->receive()) continue;
  end_incarnation();
  const bool was_ready = supervisor_.state(0) == ReplicaState::ready;
  supervisor_.exited(life(), status, now);
  if (supervisor_.state(0) == ReplicaState::backing_off) return try_again(*supervisor_.next_deadline() - now, now);
  if (!was_ready && status.signal == 0 && status.code == exit_wrong_configuration) {
    return give_up(fail(ErrorCode::invalid_argument, "worker {} {}; its last words are in the head's log", name_, how));
  }
  give_up(fail(ErrorCode::unavailable, "worker {} is given up after {} restarts", name_, supervisor_.restarts(0)));
}

void RemoteWorker::lose_head(const Error& error, Nanoseconds now) {
  head_seen_at_ = now;
  const bool was_running = state_ == State::running;
  end_incarnation();
  if (told_to_end_) {
    state_ = State::done;
    return;
  }
  if (was_running) {  // its process did nothing wrong: the next begins with all its restarts
    supervisor_.give_up(0, now);
    supervisor_.exited(life(), {}, now);
    supervisor_.start(0, now);
  }
  log(LogLevel::warning, "Worker {}: lost the head ({}){}; connecting again", name_, error.message,
      was_running ? ", its process is ended" : "");
  try_again(was_running ? connect_again_after : join_again_after, now);
}

void RemoteWorker::end_unless_connected() {
  if (over() || state_ == State::running || state_ == State::joining) return;
  connector_.reset();
  state_ = State::done;
}

void RemoteWorker::try_again(Nanoseconds after, Nanoseconds now) {
  state_ = State::waiting;
  deadline_ = now + after;
}

void RemoteWorker::give_up(Error error) {
  log(LogLevel::error, "Worker {} is given up on this node: {}", name_, error.message);
  given_up_ = std::move(error);
}

void RemoteWorker::end_incarnation() {
  process_ = ChildProcess();  // kills and reaps one that still runs
  inner_.reset();
  head_.reset();
}

}  // namespace chorus
