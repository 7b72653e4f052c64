#include "fleet/remote_engine.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/child_start.h"
#include "fleet/fleet.h"

namespace chorus {
namespace {

constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds second = 1000 * millisecond;
constexpr Nanoseconds attempt_timeout = 10 * second;  // of one connection, and of the answer to JOIN
constexpr Nanoseconds connect_again_after = 200 * millisecond;
constexpr Nanoseconds join_again_after = second;
constexpr Nanoseconds backoff_first = 100 * millisecond;
constexpr Nanoseconds backoff_max = 10 * second;
constexpr Nanoseconds stable_after = 60 * second;
constexpr std::uint32_t deaths_max = 5;
constexpr int last_words_timeout_ms = 1'000;
constexpr int exit_after_close_ms = 100;
// Bytes that may wait on one side before no more are read on the other.
constexpr std::size_t relay_bytes_max = std::size_t{32} << 20;

pollfd item_of(const Connection& connection, const Connection& other) {
  int wanted = other.queued_bytes() <= relay_bytes_max ? POLLIN : 0;
  if (connection.queued_bytes() > 0) wanted |= POLLOUT;
  return {connection.fd(), static_cast<short>(wanted), 0};
}

}  // namespace

void RemoteEngine::advance(Nanoseconds now) {
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

void RemoteEngine::append_descriptors(std::vector<pollfd>* items) const {
  if (over()) return;
  if (state_ == State::connecting) items->push_back(connector_->wanted());
  if (state_ == State::joining) items->push_back({head_->fd(), POLLIN, 0});
  if (state_ != State::running) return;
  items->push_back({process_.pidfd(), POLLIN, 0});
  items->push_back(item_of(*head_, *engine_));
  items->push_back(item_of(*engine_, *head_));
}

std::optional<Nanoseconds> RemoteEngine::next_deadline() const {
  if (over() || state_ == State::running) return std::nullopt;
  return deadline_;
}

void RemoteEngine::connect(Nanoseconds now) {
  if (state_ == State::waiting) {
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
  const JoinMessage message{rank_, node_->node_name, node_->fingerprint};
  if (auto sent = send_message(head_.get(), MessageType::join, 0, encode(message)); !sent.ok())
    return lose_head(sent.error(), now);
  state_ = State::joining;
  deadline_ = now + attempt_timeout;
}

void RemoteEngine::join(Nanoseconds now) {
  auto frame = head_->receive();
  if (!frame.ok()) return lose_head(frame.error(), now);
  if (!frame->has_value()) {
    // A head that still loads its weights answers when it is through.
    if (now >= deadline_) lose_head(fail(ErrorCode::deadline_exceeded, "no answer to JOIN"), now);
    return;
  }
  if ((*frame)->type == static_cast<std::uint8_t>(MessageType::welcome)) return start_engine(**frame, now);
  const auto refusal = decode_fatal((*frame)->payload);
  if ((*frame)->type != static_cast<std::uint8_t>(MessageType::fatal) || !refusal.ok()) {
    return lose_head(fail(ErrorCode::unavailable, "message of type {} where WELCOME was to come", (*frame)->type), now);
  }
  end_incarnation();
  if (refusal->code == ErrorCode::invalid_argument) {
    return give_up(fail(refusal->code, "the head refuses this node: {}", refusal->message));
  }
  log(LogLevel::warning, "Worker rank {}: the head refuses it for now: {}", rank_, refusal->message);
  try_again(join_again_after, now);
}

void RemoteEngine::start_engine(const Frame& welcome, Nanoseconds now) {
  epoch_ = welcome.epoch;
  said_last_words_ = false;
  ready_since_ = 0;
  const auto started = [&]() -> Result<void> {
    CHORUS_TRY(auto sockets, make_socket_pair());
    CHORUS_TRY(engine_, make_socket_connection(std::move(sockets.first)));
    CHORUS_TRY(process_,
               ChildProcess::spawn(fmt::format("chorus engine dp={}", rank_), sockets.second, engine_socket_fd));
    return {};
  }();
  if (!started.ok()) {
    end_incarnation();
    return give_up(started.error());
  }
  state_ = State::running;
  relay(now);
}

void RemoteEngine::relay(Nanoseconds now) {
  const auto from_head = relay_to_engine();
  auto from_engine = relay_to_head(now);
  // The socket closes a moment before the process is gone.
  if (const auto status = process_.reap(from_engine.ok() ? 0 : exit_after_close_ms)) return engine_ended(*status, now);
  if (!from_head.ok()) return lose_head(from_head.error(), now);
  if (!from_engine.ok()) {
    process_.kill();
    if (const auto status = process_.reap(last_words_timeout_ms)) engine_ended(*status, now);
  }
}

// An error is the engine's alone; the head's is found by relay_to_engine().
Result<void> RemoteEngine::relay_to_head(Nanoseconds now) {
  (void)head_->flush().ok();
  while (head_->queued_bytes() <= relay_bytes_max) {
    CHORUS_TRY(std::optional<Frame> frame, engine_->receive());
    if (!frame) return {};
    const auto type = static_cast<MessageType>(frame->type);
    if (type == MessageType::ready) ready_since_ = now;
    if (type == MessageType::fatal) said_last_words_ = true;
    (void)head_->send(frame->type, frame->epoch, std::move(frame->payload)).ok();
  }
  return {};
}

// An error is the head's alone; the engine's is found by relay_to_head().
Result<void> RemoteEngine::relay_to_engine() {
  (void)engine_->flush().ok();
  while (engine_->queued_bytes() <= relay_bytes_max) {
    CHORUS_TRY(std::optional<Frame> frame, head_->receive());
    if (!frame) return {};
    if (frame->epoch != epoch_) continue;
    const auto type = static_cast<MessageType>(frame->type);
    if (type == MessageType::shutdown) told_to_end_ = true;
    if (type == MessageType::config) {
      CHORUS_TRY_VOID(configure_engine(*frame));
    } else {
      (void)engine_->send(frame->type, frame->epoch, std::move(frame->payload)).ok();
    }
  }
  return {};
}

// The head's configuration, with what is this machine's own: weights, cores, memory.
Result<void> RemoteEngine::configure_engine(const Frame& frame) {
  CHORUS_TRY(EngineStart start, decode_engine_start(frame.payload));
  const int workers = node_->config.parallel.replica_size();
  const int first = (rank_ - node_->config.parallel.data_parallel_start_rank) * workers;
  start.config.model = node_->config.model;
  start.model = node_->model;
  start.kv_cache_bytes = node_->kv_cache_bytes;
  start.threads = node_->threads;
  start.worker_cpus.clear();
  for (int worker = 0; worker < workers && !node_->cpu_sets.empty(); ++worker) {
    start.worker_cpus.push_back(node_->cpu_sets[static_cast<std::size_t>(first + worker)]);
  }
  start.shard_offsets = node_->weights.shard_offsets;
  start.isa = node_->weights.isa;
  start.dtype = node_->weights.dtype;
  return engine_->send(frame.type, frame.epoch, encode(start), node_->weights.arena.fd());
}

void RemoteEngine::engine_ended(const ExitStatus& status, Nanoseconds now) {
  // What it said before its end is still the head's.
  while (relay_to_head(now).ok() && head_->queued_bytes() > relay_bytes_max) {
    if (!flush_within(head_.get(), last_words_timeout_ms).ok()) break;
  }
  if (told_to_end_) {
    (void)flush_within(head_.get(), last_words_timeout_ms).ok();
    end_incarnation();
    state_ = State::done;
    return;
  }
  const std::string how =
      fmt::format("on node {} (pid {}) {}", node_->node_name, process_.last_pid(), describe(status));
  log(LogLevel::warning, "Worker rank {} {}", rank_, how);
  if (!said_last_words_) {
    const FatalMessage words{ErrorCode::unavailable, how};
    (void)send_message(head_.get(), MessageType::fatal, epoch_, encode(words)).ok();
  }
  (void)flush_within(head_.get(), last_words_timeout_ms).ok();
  // Closing a socket with unread input resets the connection, and a reset overtakes the words that are still on the
  // way.
  for (auto unread = head_->receive(); unread.ok() && unread->has_value(); unread = head_->receive()) continue;
  const bool was_ready = ready_since_ > 0;
  if (was_ready && now - ready_since_ >= stable_after) deaths_ = 0;
  end_incarnation();
  if (!was_ready && status.signal == 0 && status.code == exit_wrong_configuration) {
    return give_up(
        fail(ErrorCode::invalid_argument, "worker rank {} {}; its last words are in the head's log", rank_, how));
  }
  if (deaths_ >= deaths_max)
    return give_up(fail(ErrorCode::unavailable, "worker rank {} is given up after {} restarts", rank_, deaths_));
  try_again(std::min(backoff_first << deaths_++, backoff_max), now);
}

void RemoteEngine::lose_head(const Error& error, Nanoseconds now) {
  const bool was_running = state_ == State::running;
  end_incarnation();
  if (told_to_end_) {
    state_ = State::done;
    return;
  }
  log(LogLevel::warning, "Worker rank {}: lost the head ({}){}; connecting again", rank_, error.message,
      was_running ? ", its engine is ended" : "");
  try_again(was_running ? connect_again_after : join_again_after, now);
}

void RemoteEngine::end_unless_connected() {
  if (over() || state_ == State::running || state_ == State::joining) return;
  connector_.reset();
  state_ = State::done;
}

void RemoteEngine::try_again(Nanoseconds after, Nanoseconds now) {
  state_ = State::waiting;
  deadline_ = now + after;
}

void RemoteEngine::give_up(Error error) {
  log(LogLevel::error, "Worker rank {} is given up on this node: {}", rank_, error.message);
  given_up_ = std::move(error);
}

void RemoteEngine::end_incarnation() {
  process_ = ChildProcess();  // kills and reaps one that still runs
  engine_.reset();
  head_.reset();
}

}  // namespace chorus
