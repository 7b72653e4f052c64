#include "fleet/engine_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_core.h"
#include "fleet/fleet.h"
#include "net/connection.h"

namespace chorus {
namespace {

constexpr int exit_ok = 0;
constexpr int exit_failed = 1;
constexpr int exit_wrong_configuration = 2;

constexpr int handshake_timeout_ms = 60'000;  // the fleet answers HELLO at once; this bounds a fleet that hangs
constexpr int last_words_timeout_ms = 1'000;
constexpr int idle_heartbeat_ms_max = 1'000;
constexpr Nanoseconds load_interval = 20'000'000;
constexpr std::size_t events_payload_bytes = std::size_t{8} << 20;
constexpr std::size_t backlog_bytes_max = std::size_t{32}
                                          << 20;  // unsent events beyond which the engine waits for the fleet

// Dies with the fleet, leaves Ctrl-C to it, and has a name of its own in `ps -o comm`.
Result<void> adopt_process_rules(int socket_fd) {
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  ::prctl(PR_SET_NAME, "chorus engine");
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    return fail(ErrorCode::internal, "prctl(PR_SET_PDEATHSIG): {}", std::strerror(errno));
  }
  ucred creator{};
  socklen_t size = sizeof creator;
  if (::getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &creator, &size) != 0) {
    return fail(ErrorCode::invalid_argument, "descriptor {} is no socket ({}): engines are started by chorus itself",
                socket_fd, std::strerror(errno));
  }
  // The fleet may have died before the prctl: then the signal will never come.
  if (::getppid() != creator.pid) return fail(ErrorCode::unavailable, "the fleet (pid {}) is gone", creator.pid);
  return {};
}

Result<void> send_message(Connection* connection, MessageType type, std::uint32_t epoch, std::string payload) {
  return connection->send(static_cast<std::uint8_t>(type), epoch, std::move(payload));
}

struct Begun {
  EngineStart start;
  LoadedWeights weights;
};

// HELLO, then CONFIG with the weights.
Result<Begun> shake_hands(Connection* connection) {
  HelloMessage hello;
  hello.pid = ::getpid();
  hello.best_isa = name_of(available_isas().front());
  CHORUS_TRY_VOID(send_message(connection, MessageType::hello, 0, encode(hello)));
  CHORUS_TRY(Frame frame, receive_within(connection, handshake_timeout_ms));
  if (frame.type != static_cast<std::uint8_t>(MessageType::config)) {
    return fail(ErrorCode::invalid_argument, "message of type {} where CONFIG was to come", frame.type);
  }
  Begun begun;
  CHORUS_TRY(begun.start, decode_engine_start(frame.payload));
  if (!frame.descriptor.valid())
    return fail(ErrorCode::invalid_argument, "CONFIG came without the weights' descriptor");
  CHORUS_TRY(begun.weights.arena, WeightArena::open(frame.descriptor.release()));
  begun.weights.isa = begun.start.isa;
  begun.weights.dtype = begun.start.dtype;
  return begun;
}

class EngineProcess {
 public:
  EngineProcess(Connection* connection, const EngineStart& start, std::unique_ptr<EngineCore> core)
      : connection_(connection),
        epoch_(start.epoch),
        stall_timeout_ms_(start.config.engine_heartbeat_timeout_ms),
        idle_wait_ms_(std::clamp(start.config.engine_heartbeat_timeout_ms / 4, 1, idle_heartbeat_ms_max)),
        core_(std::move(core)) {}

  Result<void> announce(const std::string& profile) {
    return send_message(connection_, MessageType::ready, epoch_,
                        encode(ReadyMessage{core_->load().kv_blocks_total, profile}));
  }

  // Until SHUTDOWN.
  Result<void> run() {
    while (true) {
      CHORUS_TRY_VOID(take_messages());
      if (shutdown_) return {};
      if (core_->has_work()) {
        CHORUS_TRY_VOID(step());
      } else {
        CHORUS_TRY_VOID(idle());
      }
    }
  }

 private:
  Result<void> take_messages() {
    while (!shutdown_) {
      CHORUS_TRY(std::optional<Frame> frame, connection_->receive());
      if (!frame.has_value()) return {};
      if (frame->epoch != epoch_) continue;
      CHORUS_TRY_VOID(take(*frame));
    }
    return {};
  }

  Result<void> take(const Frame& frame) {
    switch (static_cast<MessageType>(frame.type)) {
      case MessageType::add: {
        CHORUS_TRY(Request request, decode_request(frame.payload));
        core_->add(std::move(request));
        ++submissions_received_;
        return {};
      }
      case MessageType::abort: {
        CHORUS_TRY(const AbortMessage message, decode_abort(frame.payload));
        if (message.choice.has_value()) {
          core_->abort_choice(message.request, *message.choice);
        } else {
          core_->abort(message.request);
        }
        return {};
      }
      case MessageType::shutdown:
        shutdown_ = true;
        return {};
      default:
        return fail(ErrorCode::invalid_argument, "message of type {} is none that an engine takes", frame.type);
    }
  }

  Result<void> step() {
    events_.clear();
    CHORUS_TRY_VOID(core_->step(monotonic_now(), &events_));
    std::vector<std::string> payloads = encode_events(events_, events_payload_bytes);
    const auto oversized = [](const std::string& payload) { return payload.size() > frame_payload_bytes_max; };
    if (std::any_of(payloads.begin(), payloads.end(), oversized)) {
      for (const std::size_t index : refuse_oversized(events_, frame_payload_bytes_max)) {
        core_->abort_choice(events_[index].request, events_[index].choice);
      }
      payloads = encode_events(events_, events_payload_bytes);
    }
    for (std::string& payload : payloads) {
      CHORUS_TRY_VOID(send_message(connection_, MessageType::events, epoch_, std::move(payload)));
      if (connection_->queued_bytes() > backlog_bytes_max) {
        CHORUS_TRY_VOID(flush_within(connection_, stall_timeout_ms_));
      }
    }
    return report_load(monotonic_now());
  }

  Result<void> report_load(Nanoseconds now) {
    if (now - reported_at_ < load_interval) return {};
    reported_at_ = now;
    reported_ = core_->load();
    return send_message(connection_, MessageType::load, epoch_, encode(LoadMessage{reported_, submissions_received_}));
  }

  // Tells what the last steps left, then waits for the fleet; a wait that ends without a message says "still here".
  Result<void> idle() {
    const EngineLoad load = core_->load();
    if (load.steps != reported_.steps || load.waiting != reported_.waiting || load.running != reported_.running) {
      reported_at_ = monotonic_now() - load_interval;
      CHORUS_TRY_VOID(report_load(monotonic_now()));
    }
    if (connection_->queued_bytes() > 0) CHORUS_TRY_VOID(connection_->flush());
    CHORUS_TRY(const bool woken, connection_->wait(idle_wait_ms_));
    if (woken) return {};
    // With bytes still queued the fleet is not listening: more of them would not reach it either.
    if (connection_->queued_bytes() > 0) return {};
    return send_message(connection_, MessageType::heartbeat, epoch_, {});
  }

  Connection* connection_;
  std::uint32_t epoch_;
  int stall_timeout_ms_;
  int idle_wait_ms_;
  std::unique_ptr<EngineCore> core_;
  std::vector<TokenEvent> events_;
  EngineLoad reported_;
  Nanoseconds reported_at_ = 0;
  std::uint64_t submissions_received_ = 0;
  bool shutdown_ = false;
};

// What the fleet will print. A connection that is gone means that nobody listens: the fleet ended in order.
int end_with(Connection* connection, std::uint32_t epoch, const Error& error, bool starting) {
  auto told = send_message(connection, MessageType::fatal, epoch, encode(FatalMessage{error.code, error.message}));
  if (told.ok()) told = flush_within(connection, last_words_timeout_ms);
  if (!told.ok() && error.code == ErrorCode::unavailable) return exit_ok;
  const bool wrong = error.code == ErrorCode::invalid_argument || error.code == ErrorCode::not_found;
  return starting && wrong ? exit_wrong_configuration : exit_failed;
}

}  // namespace

std::string numerics_profile(const LoadedWeights& weights) {
  return fmt::format("{}/{}", name_of(weights.isa), name_of(weights.dtype));
}

int engine_process_main(int socket_fd, const ExecutorFactory& factory) {
  if (auto adopted = adopt_process_rules(socket_fd); !adopted.ok()) {
    if (adopted.error().code == ErrorCode::unavailable) return exit_ok;
    log(LogLevel::error, "engine process: {}", adopted.error().message);
    return exit_wrong_configuration;
  }
  // Never closed: the socket is to end with the process, not before its destructors, so that the fleet learns of the
  // end and of the exit status together.
  [[maybe_unused]] const int until_exit = ::fcntl(socket_fd, F_DUPFD_CLOEXEC, 0);
  auto connection = make_socket_connection(UniqueFd(socket_fd));
  if (!connection.ok()) {
    log(LogLevel::error, "engine process: {}", connection.error().message);
    return exit_failed;
  }
  auto begun = shake_hands(connection->get());
  if (!begun.ok()) return end_with(connection->get(), 0, begun.error(), true);
  const EngineStart& start = begun->start;
  auto executor = factory(start, begun->weights);
  if (!executor.ok()) return end_with(connection->get(), start.epoch, executor.error(), true);
  EngineConfig config = start.config;
  config.kv_cache_bytes = start.kv_cache_bytes;
  EngineProcess process(connection->get(), start, make_engine_core(config, start.model, std::move(*executor)));
  auto ran = process.announce(numerics_profile(begun->weights));
  if (ran.ok()) ran = process.run();
  return ran.ok() ? exit_ok : end_with(connection->get(), start.epoch, ran.error(), false);
}

bool is_engine_process(int argc, char** argv) {
  return argc > 0 && argv[0] != nullptr && std::string_view(argv[0]).starts_with("chorus engine dp=");
}

}  // namespace chorus
