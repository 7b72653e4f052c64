#include "worker/child_start.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "kernels/isa.h"

namespace chorus {
namespace {

constexpr int last_words_timeout_ms = 1'000;

Result<void> check_type(const Frame& frame, MessageType type, const char* what) {
  if (frame.type == static_cast<std::uint8_t>(type)) return {};
  return fail(ErrorCode::invalid_argument, "message of type {} where {} was to come", frame.type, what);
}

// Fails with `unavailable` when the parent is gone already.
Result<void> adopt_process_rules(int socket_fd, const char* name) {
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGTERM, SIG_IGN);  // one for the whole group is the parent's to follow: what runs may end first
  ::signal(SIGHUP, SIG_IGN);   // a closed terminal tells its whole group; the parent ends us
  ::signal(SIGPIPE, SIG_IGN);
  ::prctl(PR_SET_NAME, name);
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    return fail(ErrorCode::internal, "prctl(PR_SET_PDEATHSIG): {}", std::strerror(errno));
  }
  ucred creator{};
  socklen_t size = sizeof creator;
  if (::getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &creator, &size) != 0) {
    return fail(ErrorCode::invalid_argument,
                "descriptor {} is no socket ({}): engines and workers are started by chorus itself", socket_fd,
                std::strerror(errno));
  }
  // The parent may have died before the prctl: then the signal will never come.
  if (::getppid() != creator.pid) return fail(ErrorCode::unavailable, "the parent (pid {}) is gone", creator.pid);
  return {};
}

Result<std::unique_ptr<Connection>> open_start_socket(int socket_fd) {
  [[maybe_unused]] const int until_exit = ::fcntl(socket_fd, F_DUPFD_CLOEXEC, 0);
  return make_socket_connection(UniqueFd(socket_fd));
}

}  // namespace

int child_process_main(int socket_fd, const char* comm, const char* name, const std::function<int(Connection*)>& run) {
  if (const auto adopted = adopt_process_rules(socket_fd, comm); !adopted.ok()) {
    if (adopted.error().code == ErrorCode::unavailable) return exit_ok;
    log(LogLevel::error, "{}: {}", name, adopted.error().message);
    return exit_wrong_configuration;
  }
  const auto connection = open_start_socket(socket_fd);
  if (!connection.ok()) {
    log(LogLevel::error, "{}: {}", name, connection.error().message);
    return exit_failed;
  }
  return run(connection->get());
}

Result<void> send_message(Connection* connection, MessageType type, std::uint32_t epoch, std::string payload) {
  return connection->send(static_cast<std::uint8_t>(type), epoch, std::move(payload));
}

Result<Frame> ask_for_configuration(Connection* connection) {
  HelloMessage hello;
  hello.pid = ::getpid();
  hello.best_isa = name_of(available_isas().front());
  CHORUS_TRY_VOID(send_message(connection, MessageType::hello, 0, encode(hello)));
  CHORUS_TRY(Frame frame, receive_within(connection, handshake_timeout_ms));
  if (frame.type == static_cast<std::uint8_t>(MessageType::shutdown)) {
    return fail(ErrorCode::cancelled, "the fleet ended before this process had its CONFIG");
  }
  CHORUS_TRY_VOID(check_type(frame, MessageType::config, "CONFIG"));
  return frame;
}

Result<Frame> receive_message(Connection* connection, MessageType type, const char* what, int timeout_ms) {
  CHORUS_TRY(Frame frame, receive_within(connection, timeout_ms));
  CHORUS_TRY_VOID(check_type(frame, type, what));
  return frame;
}

Result<Frame> receive_with_descriptor(Connection* connection, MessageType type, const char* what, int timeout_ms) {
  CHORUS_TRY(Frame frame, receive_message(connection, type, what, timeout_ms));
  if (!frame.descriptor.valid()) return fail(ErrorCode::invalid_argument, "{} came without its descriptor", what);
  return frame;
}

Result<ProgressMemory> receive_progress_memory(Connection* connection, const EngineStart& start) {
  if (!start.shows_progress) return ProgressMemory();
  CHORUS_TRY(Frame frame, receive_with_descriptor(connection, MessageType::progress, "PROGRESS"));
  return ProgressMemory::open(std::move(frame.descriptor));
}

Result<LoadedWeights> open_weights(const EngineStart& start, UniqueFd fd) {
  if (!fd.valid()) return fail(ErrorCode::invalid_argument, "CONFIG came without the weights' descriptor");
  LoadedWeights weights;
  CHORUS_TRY(weights.arena, WeightArena::open(fd.release()));
  weights.shard_offsets = start.shard_offsets;
  weights.isa = start.isa;
  weights.dtype = start.dtype;
  weights.quantization = compute_quantization(start.config, start.model);
  const bool ascending = std::ranges::is_sorted(weights.shard_offsets);
  if (weights.shard_offsets.empty() || !ascending || weights.shard_offsets.back() > weights.arena.size()) {
    return fail(ErrorCode::invalid_argument, "the offsets of {} weight shards do not lie in {} bytes",
                weights.shard_offsets.size(), weights.arena.size());
  }
  return weights;
}

int end_with(Connection* connection, std::uint32_t epoch, const Error& error, bool starting) {
  auto told = send_message(connection, MessageType::fatal, epoch, encode(FatalMessage{error.code, error.message}));
  if (told.ok()) told = flush_within(connection, last_words_timeout_ms);
  if (!told.ok() && error.code == ErrorCode::unavailable) return exit_ok;
  const bool wrong = error.code == ErrorCode::invalid_argument || error.code == ErrorCode::not_found;
  return starting && wrong ? exit_wrong_configuration : exit_failed;
}

}  // namespace chorus
