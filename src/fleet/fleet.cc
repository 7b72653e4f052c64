#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "cluster/balance/load_balancer.h"
#include "cluster/router.h"
#include "cluster/supervisor.h"
#include "config/node.h"
#include "fleet/backlog.h"
#include "fleet/engine_process.h"
#include "fleet/fleet_setup.h"
#include "fleet/replica_link.h"

namespace chorus {
namespace {

constexpr int shutdown_timeout_ms = 2'000;
// The kernel closes a dying process's sockets a moment before its pidfd tells: how long to wait for the exit status
// before the replica counts as one that broke its connection.
constexpr int exit_after_close_ms = 10;
constexpr int poll_slice_ms_max = 1'000;
// A prompt that would not fit in a frame (4 bytes a token, the rest is small beside it).
constexpr std::size_t prompt_tokens_max = frame_payload_bytes_max / 8;

class FleetImpl final : public Fleet {
 public:
  FleetImpl(const EngineConfig& config, const ModelConfig& model, const SupervisorLimits& limits)
      : config_(config),
        model_(model),
        ranks_(config.parallel.data_parallel_size),
        limits_(limits),
        router_(ranks_, make_load_balancer(config.load_balancer)),
        supervisor_(ranks_, limits),
        backlog_(config.scheduling_policy == SchedulingPolicy::priority),
        links_(static_cast<std::size_t>(ranks_)),
        loads_(static_cast<std::size_t>(ranks_)),
        last_deaths_(static_cast<std::size_t>(ranks_)),
        window_(2 * static_cast<std::size_t>(config.max_num_seqs)) {}
  ~FleetImpl() override;

  Result<void> start(const FleetSetup& setup);

  Result<void> submit(Request request, std::optional<int> dp_rank) override;
  void abort(RequestId request) override;
  void abort_choice(RequestId request, std::uint32_t choice) override;
  Result<void> poll(int timeout_ms, std::vector<FleetEvent>* events) override;
  std::vector<ReplicaStatus> replicas() const override;
  FleetTimes times() const override { return times_; }

 private:
  // Life and death.
  void act_on_supervisor();
  void spawn(Placement replica);
  void bury(Placement replica);
  void kill(Placement replica);
  void check_exit(int rank, int timeout_ms);
  void fault(ReplicaLink& link, const std::string& reason);
  struct Death {
    ErrorCode code = ErrorCode::unavailable;
    std::string words;  // "was killed by SIGKILL"; empty: has not died
  };
  Death death_of(const ReplicaLink& link) const;
  Error all_dead() const;

  // Messages.
  void read_from(int rank);
  Result<void> handle(ReplicaLink& link, const Frame& frame);
  Result<void> on_hello(ReplicaLink& link, const Frame& frame);
  Result<void> on_ready(ReplicaLink& link, const Frame& frame);
  Result<void> on_events(ReplicaLink& link, const Frame& frame);
  Result<void> on_load(ReplicaLink& link, const Frame& frame);
  void send_messages();
  void hand_out();
  bool is_ready(int rank) const { return router_.ready_epoch(rank).has_value(); }

  // One pass of the loop.
  void turn(int timeout_ms);
  int wait_ms(Nanoseconds deadline) const;

  std::optional<ReplicaLink>& link(int rank) { return links_[static_cast<std::size_t>(rank)]; }

  EngineConfig config_;
  ModelConfig model_;
  int ranks_;
  SupervisorLimits limits_;
  Router router_;
  Supervisor supervisor_;
  Backlog backlog_;
  std::vector<std::optional<ReplicaLink>> links_;  // by rank: the present incarnation, until its process is reaped
  std::vector<EngineLoad> loads_;
  std::vector<Death> last_deaths_;  // by rank
  std::size_t window_;              // sequences at a replica at most, of those that wait here
  LoadedWeights weights_;
  int threads_ = 1;
  std::uint64_t kv_cache_bytes_ = 0;
  std::vector<std::vector<int>> cpu_sets_;
  std::vector<FleetEvent> events_;  // received and not yet polled
  std::size_t deaths_ = 0;
  FleetTimes times_;
};

// ---- start and end ----

double seconds_since(Nanoseconds begin) {
  return static_cast<double>(monotonic_now() - begin) * 1e-9;
}

Result<void> FleetImpl::start(const FleetSetup& setup) {
  const Nanoseconds begin = monotonic_now();
  const NodeResources node = detect_node();
  threads_ = threads_per_replica(config_, node);
  std::vector<std::string> warnings;
  CHORUS_TRY(cpu_sets_, cpu_sets_per_replica(config_, node, &warnings));
  for (const std::string& warning : warnings) log(LogLevel::warning, "{}", warning);
  CHORUS_TRY(weights_, setup.load_weights(config_, model_, node.cores()));
  times_.load_s = seconds_since(begin);
  times_.weight_bytes = weights_.arena.size();
  times_.profile = numerics_profile(weights_);
  CHORUS_TRY(kv_cache_bytes_, kv_cache_bytes_per_replica(config_, detect_node(), 0));

  log(LogLevel::info, "Starting {} data parallel workers", ranks_);
  for (int rank = 0; rank < ranks_; ++rank) supervisor_.start(rank, monotonic_now());
  const auto ready = [&] {
    for (int rank = 0; rank < ranks_; ++rank) {
      if (!is_ready(rank)) return false;
    }
    return true;
  };
  // The supervisor's start deadline ends this loop. A death before all are READY fails the start: retrying would hide
  // why.
  while (!ready() && deaths_ == 0) turn(poll_slice_ms_max);
  if (deaths_ > 0) return all_dead();
  times_.ready_s = seconds_since(begin);
  return {};
}

FleetImpl::~FleetImpl() {
  for (auto& link : links_) {
    if (!link) continue;
    // One that is not ready is loading and would not listen: it has nothing to end in order either.
    if (!is_ready(link->replica().rank)) link->process().kill();
    link->post(MessageType::shutdown, {});
    // Its end of the socket tells the same to one that does not get to reading.
    link->disconnect();
  }
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{shutdown_timeout_ms} * 1'000'000;
  for (auto& link : links_) {
    if (link) link->process().reap(wait_ms(deadline));
  }
  // ~ChildProcess kills and reaps what is left; all first, so that they end side by side.
  for (auto& link : links_) {
    if (link) link->process().kill();
  }
}

// ---- the caller's side ----

Result<void> FleetImpl::submit(Request request, std::optional<int> dp_rank) {
  if (dp_rank && (*dp_rank < 0 || *dp_rank >= ranks_)) {
    return fail(ErrorCode::invalid_argument, "no data parallel rank {}: there are {}", *dp_rank, ranks_);
  }
  if (router_.ledger().contains(request.id) || backlog_.contains(request.id)) {
    return fail(ErrorCode::invalid_argument, "request {} is in flight already: give each a new id", request.id);
  }
  if (request.prompt.size() > prompt_tokens_max) {
    return fail(ErrorCode::invalid_argument, "request {}: a prompt of {} tokens, at most {} can be sent to an engine",
                request.id, request.prompt.size(), prompt_tokens_max);
  }
  if (request.params.max_tokens == 0 || (request.choices.empty() && request.params.n == 0)) {
    return fail(ErrorCode::invalid_argument, "request {} has n {} and max_tokens {}: give at least 1 of each",
                request.id, request.params.n, request.params.max_tokens);
  }
  for (const ChoiceState& choice : request.choices) {
    if (choice.emitted.size() < request.params.max_tokens) continue;
    return fail(ErrorCode::invalid_argument, "choice {} of request {} has all of its {} tokens: leave it out",
                choice.index, request.id, request.params.max_tokens);
  }
  backlog_.push(std::move(request), dp_rank);
  hand_out();
  return {};
}

void FleetImpl::abort(RequestId request) {
  std::erase_if(events_, [&](const FleetEvent& event) { return event.event.request == request; });
  if (backlog_.abort(request)) return;
  router_.abort(request);
  hand_out();
}

void FleetImpl::abort_choice(RequestId request, std::uint32_t choice) {
  std::erase_if(
      events_, [&](const FleetEvent& event) { return event.event.request == request && event.event.choice == choice; });
  if (backlog_.abort_choice(request, choice)) return;
  router_.abort_choice(request, choice);
  hand_out();
}

Result<void> FleetImpl::poll(int timeout_ms, std::vector<FleetEvent>* events) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
  do {
    if (supervisor_.all_given_up()) break;
    turn(events_.empty() ? wait_ms(deadline) : 0);
  } while (events_.empty() && monotonic_now() < deadline);
  // What came before the end is still the caller's.
  if (events_.empty() && supervisor_.all_given_up()) return all_dead();
  std::move(events_.begin(), events_.end(), std::back_inserter(*events));
  events_.clear();
  return {};
}

std::vector<ReplicaStatus> FleetImpl::replicas() const {
  std::vector<ReplicaStatus> status;
  for (int rank = 0; rank < ranks_; ++rank) {
    const auto& link = links_[static_cast<std::size_t>(rank)];
    status.push_back({rank, is_ready(rank), link ? link->process().pid() : 0, router_.ledger().requests_on(rank),
                      loads_[static_cast<std::size_t>(rank)]});
  }
  return status;
}

// ---- the loop ----

int FleetImpl::wait_ms(Nanoseconds deadline) const {
  const Nanoseconds left = deadline - monotonic_now();
  return left <= 0 ? 0 : static_cast<int>((left + 999'999) / 1'000'000);
}

// Waits once, takes what came, then looks at the clock: a caller that was away for long finds the heartbeats that came
// meanwhile before anyone is declared dead.
void FleetImpl::turn(int timeout_ms) {
  act_on_supervisor();
  hand_out();
  if (const auto deadline = supervisor_.next_deadline()) timeout_ms = std::min(timeout_ms, wait_ms(*deadline));
  std::vector<pollfd> items;
  std::vector<int> ranks;
  for (int rank = 0; rank < ranks_; ++rank) {
    const auto& replica = link(rank);
    if (!replica) continue;
    const auto wanted = static_cast<short>(replica->wants_to_write() ? POLLIN | POLLOUT : POLLIN);
    items.push_back({replica->socket(), wanted, 0});  // a negative descriptor is skipped by poll(2)
    items.push_back({replica->process().pidfd(), POLLIN, 0});
    ranks.push_back(rank);
  }
  const int ready = ::poll(items.data(), items.size(), timeout_ms);
  CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
  for (std::size_t i = 0; ready > 0 && i < ranks.size(); ++i) {
    if ((items[2 * i].revents & POLLOUT) != 0 && link(ranks[i])) link(ranks[i])->pump();
    if ((items[2 * i].revents & ~POLLOUT) != 0) read_from(ranks[i]);
    if (items[2 * i + 1].revents != 0) check_exit(ranks[i], 0);
  }
  supervisor_.tick(monotonic_now());
  act_on_supervisor();
  hand_out();
}

void FleetImpl::read_from(int rank) {
  while (link(rank) && link(rank)->connected()) {
    ReplicaLink& replica = *link(rank);
    auto frame = replica.receive();
    if (!frame.ok()) {
      if (frame.error().code == ErrorCode::unavailable) check_exit(rank, exit_after_close_ms);
      if (link(rank)) fault(*link(rank), frame.error().message);
      return;
    }
    if (!frame->has_value()) return;
    const auto handled = handle(replica, **frame);
    if (!handled.ok()) return fault(replica, handled.error().message);
    supervisor_.heartbeat(replica.replica(), monotonic_now());
  }
}

// ---- what engines say ----

Result<void> FleetImpl::handle(ReplicaLink& link, const Frame& frame) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::hello:
      return on_hello(link, frame);
    case MessageType::ready:
      return on_ready(link, frame);
    case MessageType::events:
      return on_events(link, frame);
    case MessageType::load:
      return on_load(link, frame);
    case MessageType::heartbeat:
      return {};
    case MessageType::fatal: {
      // Its exit follows, with the status that tells whether a restart makes sense.
      CHORUS_TRY(const FatalMessage message, decode_fatal(frame.payload));
      link.last_words = message;
      return {};
    }
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that an engine sends", frame.type);
  }
}

Result<void> FleetImpl::on_hello(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const HelloMessage hello, decode_hello(frame.payload));
  if (link.said_hello) return fail(ErrorCode::invalid_argument, "a second HELLO");
  if (hello.version != protocol_version) {
    return fail(ErrorCode::invalid_argument,
                "it speaks protocol version {}, this process {}: was the program replaced?", hello.version,
                protocol_version);
  }
  link.said_hello = true;
  const int rank = link.replica().rank;
  EngineStart start{config_,  model_, rank,         link.replica().epoch, kv_cache_bytes_,
                    threads_, {},     weights_.isa, weights_.dtype};
  if (!cpu_sets_.empty()) start.cpus = cpu_sets_[static_cast<std::size_t>(rank)];
  link.post(MessageType::config, encode(start), weights_.arena.fd());
  return {};
}

Result<void> FleetImpl::on_ready(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const ReadyMessage ready, decode_ready(frame.payload));
  const Placement replica = link.replica();
  if (supervisor_.state(replica.rank) != ReplicaState::starting)
    return fail(ErrorCode::invalid_argument, "READY out of turn");
  if (ready.profile != times_.profile) {
    return fail(ErrorCode::invalid_argument, "its numerics profile is {}, the fleet's {}", ready.profile,
                times_.profile);
  }
  supervisor_.ready(replica, monotonic_now());
  router_.replica_ready(replica);
  loads_[static_cast<std::size_t>(replica.rank)] = {};
  log(LogLevel::info, "Worker rank {} is ready", replica.rank);
  return {};
}

Result<void> FleetImpl::on_events(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(std::vector<TokenEvent> events, decode_events(frame.payload));
  for (TokenEvent& event : events) {
    const Judgement judgement = router_.on_event(link.replica(), &event);
    if (judgement.verdict == Verdict::faulty) return fail(ErrorCode::invalid_argument, "{}", judgement.fault);
    if (judgement.verdict == Verdict::accepted) events_.push_back({std::move(event), link.replica().rank});
  }
  return {};
}

Result<void> FleetImpl::on_load(ReplicaLink& link, const Frame& frame) {
  CHORUS_TRY(const LoadMessage message, decode_load(frame.payload));
  const EngineLoad& load = message.load;
  const Judgement judgement = router_.on_report(
      link.replica(), {load.waiting, load.running, load.kv_blocks_free, message.submissions_received});
  if (judgement.verdict == Verdict::faulty) return fail(ErrorCode::invalid_argument, "{}", judgement.fault);
  loads_[static_cast<std::size_t>(link.replica().rank)] = load;
  return {};
}

// ---- what goes out ----

// Lets waiting requests go where there is room, then sends.
void FleetImpl::hand_out() {
  std::size_t room = 0;
  for (int rank = 0; rank < ranks_; ++rank) {
    if (is_ready(rank)) room += window_;
  }
  for (int rank = 0; rank < ranks_; ++rank) {
    while (is_ready(rank) && router_.ledger().sequences_on(rank) < window_) {
      std::optional<Request> request = backlog_.take(rank);
      if (!request) break;
      const auto submitted = router_.submit(std::move(*request), rank);
      CHECK(submitted.ok(), "{}", submitted.error().message);
    }
  }
  const auto in_flight = [&] {
    std::size_t sequences = 0;
    for (int rank = 0; rank < ranks_; ++rank) sequences += router_.ledger().sequences_on(rank);
    return sequences;
  };
  for (std::size_t sequences = in_flight(); sequences < room; sequences = in_flight()) {
    std::optional<Request> request = backlog_.take(std::nullopt);
    // Those that want a rank which is dead are free to go anywhere.
    for (int rank = 0; !request && rank < ranks_; ++rank) {
      if (!is_ready(rank)) request = backlog_.take(rank);
    }
    if (!request) break;
    const auto submitted = router_.submit(std::move(*request), std::nullopt);
    CHECK(submitted.ok(), "{}", submitted.error().message);
  }
  send_messages();
}

void FleetImpl::send_messages() {
  for (RouterMessage& message : router_.take_messages()) {
    auto& to = link(message.to.rank);
    if (!to || to->replica() != message.to) continue;  // its death is already known to the router
    switch (message.kind) {
      case RouterMessage::Kind::add:
        to->post(MessageType::add, encode(message.request));
        break;
      case RouterMessage::Kind::abort:
        to->post(MessageType::abort, encode(AbortMessage{message.id, {}}));
        break;
      case RouterMessage::Kind::abort_choice:
        to->post(MessageType::abort, encode(AbortMessage{message.id, message.choice}));
        break;
    }
  }
}

// ---- life and death ----

void FleetImpl::act_on_supervisor() {
  // An action may bring the next one about (a process that cannot be started has died).
  for (auto actions = supervisor_.take_actions(); !actions.empty(); actions = supervisor_.take_actions()) {
    for (const SupervisorAction& action : actions) {
      switch (action.kind) {
        case SupervisorAction::Kind::spawn:
          spawn(action.replica);
          break;
        case SupervisorAction::Kind::died:
          bury(action.replica);
          break;
        case SupervisorAction::Kind::kill:
          kill(action.replica);
          break;
        case SupervisorAction::Kind::give_up:
          log(LogLevel::error, "Worker rank {} is given up after {} restarts", action.replica.rank,
              supervisor_.restarts(action.replica.rank));
          break;
      }
    }
  }
}

void FleetImpl::spawn(Placement replica) {
  auto started = ReplicaLink::start(replica);
  if (!started.ok()) {
    last_deaths_[static_cast<std::size_t>(replica.rank)] = {started.error().code,
                                                            fmt::format("did not start ({})", started.error().message)};
    supervisor_.exited(replica, ExitStatus{1, 0}, monotonic_now());
    return;
  }
  link(replica.rank) = std::move(*started);
}

// The epoch is dead for everybody. Its process may still be there.
void FleetImpl::bury(Placement replica) {
  ++deaths_;
  Death& death = last_deaths_[static_cast<std::size_t>(replica.rank)];
  auto& dead = link(replica.rank);
  int pid = 0;
  if (dead && dead->replica() == replica) {
    death = death_of(*dead);
    pid = dead->pid();
    dead->disconnect();
  }
  const std::uint32_t requests = router_.ledger().requests_on(replica.rank);
  router_.replica_died(replica);
  if (requests == 0) {
    log(LogLevel::warning, "Worker rank {} (pid {}) {}; it held no requests", replica.rank, pid, death.words);
    return;
  }
  const char* fate = router_.ledger().unplaced() > 0 ? "wait for a restart" : "go to the others";
  log(LogLevel::warning, "Worker rank {} (pid {}) {}: its {} requests {}", replica.rank, pid, death.words, requests,
      fate);
}

FleetImpl::Death FleetImpl::death_of(const ReplicaLink& link) const {
  if (link.last_words) return {link.last_words->code, fmt::format("{}: {}", link.reason, link.last_words->message)};
  if (!link.reason.empty()) return {ErrorCode::unavailable, link.reason};
  if (is_ready(link.replica().rank)) {
    return {ErrorCode::unavailable,
            fmt::format("gave no sign of life for {} ms", limits_.heartbeat_timeout / 1'000'000)};
  }
  return {ErrorCode::deadline_exceeded, fmt::format("was not ready within {} ms", limits_.start_timeout / 1'000'000)};
}

void FleetImpl::kill(Placement replica) {
  auto& doomed = link(replica.rank);
  if (doomed && doomed->replica() == replica) doomed->process().kill();
}

// If the process has ended (or does within timeout_ms): takes what it still said, then tells the supervisor.
void FleetImpl::check_exit(int rank, int timeout_ms) {
  auto& ended = link(rank);
  if (!ended) return;
  const std::optional<ExitStatus> status = ended->process().reap(timeout_ms);
  if (!status) return;
  const Placement replica = ended->replica();
  for (auto frame = ended->receive(); frame.ok() && frame->has_value(); frame = ended->receive()) {
    if (!handle(*ended, **frame).ok()) break;
  }
  ended->reason = describe(*status);
  supervisor_.exited(replica, *status, monotonic_now());
  act_on_supervisor();
  if (ended && ended->replica() == replica) ended.reset();
}

void FleetImpl::fault(ReplicaLink& link, const std::string& reason) {
  link.reason = fmt::format("was ended ({})", reason);
  supervisor_.fault(link.replica(), monotonic_now());
  act_on_supervisor();
}

Error FleetImpl::all_dead() const {
  Error error = fail(ErrorCode::unavailable, "no replica could be kept alive");
  const char* separator = ": ";
  for (int rank = 0; rank < ranks_; ++rank) {
    const Death& death = last_deaths_[static_cast<std::size_t>(rank)];
    if (death.words.empty()) continue;
    error.code = death.code;
    error.message += fmt::format("{}worker rank {} {}", separator, rank, death.words);
    separator = "; ";
  }
  return error;
}

Result<std::unique_ptr<Fleet>> started(std::unique_ptr<FleetImpl> fleet, const FleetSetup& setup) {
  CHORUS_TRY_VOID(fleet->start(setup));
  return std::unique_ptr<Fleet>(std::move(fleet));
}

}  // namespace

SupervisorLimits supervisor_limits(const EngineConfig& config) {
  SupervisorLimits limits;
  limits.start_timeout = Nanoseconds{config.engine_start_timeout_ms} * 1'000'000;
  limits.heartbeat_timeout = Nanoseconds{config.engine_heartbeat_timeout_ms} * 1'000'000;
  return limits;
}

Result<std::unique_ptr<Fleet>> start_fleet(const EngineConfig& config, const ModelConfig& model,
                                           const FleetSetup& setup) {
  return started(std::make_unique<FleetImpl>(config, model, setup.supervisor), setup);
}

}  // namespace chorus
