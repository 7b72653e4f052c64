#include "worker/engine_process.h"

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
#include "exec/watched_executor.h"
#include "net/connection.h"
#include "worker/child_start.h"
#include "worker/client_table.h"
#include "worker/process_main.h"

namespace chorus {
namespace {

constexpr int idle_heartbeat_ms_max = 1'000;
constexpr Nanoseconds load_interval = 20'000'000;
constexpr Nanoseconds check_interval = 100'000'000;
constexpr int reader_wait_ms = 20;  // then it is looked at whether it still reads

struct Begun {
  EngineStart start;
  LoadedWeights weights;
  ProgressMemory progress;
};

// HELLO, then CONFIG with the weights, and PROGRESS.
Result<Begun> shake_hands(Connection* connection) {
  CHORUS_TRY(Frame frame, ask_for_configuration(connection));
  Begun begun;
  CHORUS_TRY(begun.start, decode_engine_start(frame.payload));
  CHORUS_TRY(begun.weights, open_weights(begun.start, std::move(frame.descriptor)));
  CHORUS_TRY(begun.progress, receive_progress_memory(connection, begun.start));
  return begun;
}

class EngineProcess {
 public:
  EngineProcess(Connection* connection, const EngineStart& start, const Progress& progress, StartedReplica* replica)
      : connection_(connection),
        workers_(replica->workers.get()),
        check_(replica->check),
        epoch_(start.epoch),
        steps_together_(start.config.parallel.replicas_step_together()),
        idle_wait_ms_(std::clamp(start.config.engine_heartbeat_timeout_ms / 4, 1,
                                 check_ ? static_cast<int>(check_interval / 1'000'000) : idle_heartbeat_ms_max)),
        progress_(progress),
        core_(make_engine_core(start.config, start.model, make_watched_executor(std::move(replica->executor), progress),
                               start.prefix_key)),
        clients_(core_.get(), connection, start.epoch,
                 ClientLimits{.control_timeout_ms = start.config.engine_heartbeat_timeout_ms}) {}

  Result<void> announce(const std::string& profile) {
    return send_message(connection_, MessageType::ready, epoch_,
                        encode(ReadyMessage{core_->load().kv_blocks_total, profile}));
  }

  // Until SHUTDOWN.
  Result<void> run() {
    while (true) {
      CHORUS_TRY_VOID(take_messages());
      clients_.serve();
      if (shutdown_) return check_ ? finish_wave() : Result<void>();
      CHORUS_TRY_VOID(check_now_and_then());
      if (core_->must_step() && !steps_together_ && clients_.waits_for_readers(monotonic_now())) {
        CHORUS_TRY_VOID(wait_for_readers());
      } else if (core_->must_step()) {
        CHORUS_TRY_VOID(step());
      } else {
        CHORUS_TRY_VOID(idle());
      }
    }
  }

 private:
  Result<void> check_now_and_then() {
    const Nanoseconds now = monotonic_now();
    if (!check_ || now - checked_at_ < check_interval) return {};
    checked_at_ = now;
    return check_();
  }

  // Replicas that step together and whose processes go on afterwards leave no other one waiting within a step.
  Result<void> finish_wave() {
    while (steps_together_ && core_->must_step()) {
      events_.clear();
      CHORUS_TRY_VOID(core_->step(monotonic_now(), &events_));
    }
    return {};
  }

  Result<void> take_messages() {
    while (!shutdown_) {
      CHORUS_TRY(std::optional<Frame> frame, connection_->receive());
      if (!frame.has_value()) return {};
      if (frame->epoch != epoch_) continue;
      CHORUS_TRY_VOID(take(std::move(*frame)));
    }
    return {};
  }

  Result<void> take(Frame frame) {
    switch (static_cast<MessageType>(frame.type)) {
      case MessageType::add:
      case MessageType::abort:
      case MessageType::prefix_cache_reset:
        return clients_.take_shared(frame);
      case MessageType::client: {
        CHORUS_TRY(const ClientMessage message, decode_client(frame.payload));
        std::unique_ptr<Connection> connection;
        if (frame.descriptor.valid()) {
          CHORUS_TRY(connection, make_socket_connection(std::move(frame.descriptor)));
        }
        return clients_.announce(message.client, std::move(connection));
      }
      case MessageType::client_gone: {
        CHORUS_TRY(const ClientMessage message, decode_client(frame.payload));
        clients_.gone(message.client);
        return {};
      }
      case MessageType::wave: {
        CHORUS_TRY(const WaveMessage message, decode_wave(frame.payload));
        core_->begin_wave(message.wave);
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
    progress_.set_busy(true);
    events_.clear();
    const std::uint64_t waves_ended = core_->waves_ended();
    if (auto stepped = core_->step(monotonic_now(), &events_); !stepped.ok()) {
      // How the process behind a broken world ended says more than that it is gone.
      if (workers_ != nullptr) CHORUS_TRY_VOID(workers_->check());
      return stepped;
    }
    CHORUS_TRY_VOID(clients_.tell(&events_));
    if (core_->waves_ended() != waves_ended) {
      CHORUS_TRY_VOID(send_message(connection_, MessageType::wave, epoch_, encode(WaveMessage{core_->waves_ended()})));
    }
    return report_load(monotonic_now());
  }

  Result<void> report_load(Nanoseconds now) {
    if (now - reported_at_ < load_interval) return {};
    reported_at_ = now;
    reported_ = core_->load();
    return clients_.report(reported_);
  }

  // Tells what the last steps left, then waits for a message; a wait that ends without a message says "still here".
  Result<void> idle() {
    progress_.set_busy(false);
    const EngineLoad load = core_->load();
    // A request that was added and aborted between two steps has changed nothing but the count.
    if (load.steps != reported_.steps || load.waiting != reported_.waiting || load.running != reported_.running ||
        clients_.has_unreported()) {
      reported_at_ = monotonic_now() - load_interval;
      CHORUS_TRY_VOID(report_load(monotonic_now()));
    }
    if (connection_->queued_bytes() > 0) CHORUS_TRY_VOID(connection_->flush());
    CHORUS_TRY(const bool woken, wait(idle_wait_ms_));
    if (woken) return {};
    // With bytes still queued the fleet is not listening: more of them would not reach it either.
    if (connection_->queued_bytes() > 0) return {};
    return send_message(connection_, MessageType::heartbeat, epoch_, {});
  }

  Result<void> wait_for_readers() {
    progress_.set_busy(false);
    CHORUS_TRY_VOID(wait(reader_wait_ms));
    return {};
  }

  // For the parent, a client, or a worker that ends.
  Result<bool> wait(int timeout_ms) {
    descriptors_.assign(1, poll_item(*connection_));
    clients_.append_descriptors(&descriptors_);
    if (workers_ != nullptr) workers_->append_descriptors(&descriptors_);
    const int ready = ::poll(descriptors_.data(), descriptors_.size(), timeout_ms);
    if (workers_ != nullptr) CHORUS_TRY_VOID(workers_->check());
    return ready > 0;
  }

  Connection* connection_;
  WorkerProcesses* workers_;  // null: none
  std::function<Result<void>()> check_;
  Nanoseconds checked_at_ = 0;
  std::vector<pollfd> descriptors_;
  std::uint32_t epoch_;
  bool steps_together_;
  int idle_wait_ms_;
  Progress progress_;
  std::unique_ptr<EngineCore> core_;
  ClientTable clients_;
  std::vector<TokenEvent> events_;
  EngineLoad reported_;
  Nanoseconds reported_at_ = 0;
  bool shutdown_ = false;
};

}  // namespace

std::string numerics_profile(const LoadedWeights& weights, const EngineConfig& config) {
  return numerics_profile(weights.isa, weights.dtype, weights.quantization, compute_kv_dtype(config, weights.dtype));
}

int engine_process_main(int socket_fd, const ReplicaFactory& factory) {
  return child_process_main(socket_fd, "chorus engine", "engine process", [&](Connection* connection) {
    auto begun = shake_hands(connection);
    if (!begun.ok()) return end_with(connection, 0, begun.error(), true);
    const EngineStart& start = begun->start;
    auto replica = factory(start, begun->weights, connection, begun->progress);
    if (!replica.ok()) return end_with(connection, start.epoch, replica.error(), true);
    EngineProcess process(connection, start, begun->progress.progress(), &*replica);
    auto ran = process.announce(numerics_profile(begun->weights, start.config));
    if (ran.ok()) ran = process.run();
    if (!ran.ok() && replica->workers) replica->workers->kill();
    return ran.ok() ? exit_ok : end_with(connection, start.epoch, ran.error(), false);
  });
}

Result<void> serve_engine(Connection* connection, const std::string& profile, const OwnReplicaFactory& factory) {
  std::uint32_t epoch = 0;
  const auto served = [&]() -> Result<void> {
    const auto frame = ask_for_configuration(connection);
    if (!frame.ok() && frame.error().code == ErrorCode::cancelled) return {};
    if (!frame.ok()) return frame.error();
    CHORUS_TRY(const EngineStart start, decode_engine_start(frame->payload));
    epoch = start.epoch;
    CHORUS_TRY(StartedReplica replica, factory(start));
    EngineProcess process(connection, start, Progress(), &replica);
    CHORUS_TRY_VOID(process.announce(profile));
    return process.run();
  }();
  if (served.ok() || end_with(connection, epoch, served.error(), false) == exit_ok) return {};
  return served;
}

bool is_engine_process(int argc, char** argv) {
  return argc > 0 && argv[0] != nullptr && std::string_view(argv[0]).starts_with("chorus engine dp=");
}

}  // namespace chorus
