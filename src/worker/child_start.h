// What an engine and a worker process have in common: how they begin and how they end.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "exec/load_weights.h"
#include "net/connection.h"
#include "net/unique_fd.h"
#include "protocol/messages.h"
#include "worker/progress_memory.h"

namespace chorus {

inline constexpr int exit_ok = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_wrong_configuration = 2;

// Dies with the process at the other end of the socket, leaves Ctrl-C and SIGTERM to it, and is `name` in `ps -o comm`.
// Fails with `unavailable` when that process is gone already.
Result<void> adopt_process_rules(int socket_fd, const char* name);

// The descriptor that the process was started with as a connection. The socket itself stays open until the process
// ends, so that the other side learns of the end and of the exit status together.
Result<std::unique_ptr<Connection>> open_start_socket(int socket_fd);

// HELLO, then the CONFIG that answers it.
Result<Frame> ask_for_configuration(Connection* connection);

// The next frame, which must be of this type; the second: and bring a descriptor.
inline constexpr int handshake_timeout_ms = 60'000;  // the parent answers at once; this bounds one that hangs
Result<Frame> receive_message(Connection* connection, MessageType type, const char* what,
                              int timeout_ms = handshake_timeout_ms);
Result<Frame> receive_with_descriptor(Connection* connection, MessageType type, const char* what,
                                      int timeout_ms = handshake_timeout_ms);

// The memory that comes with PROGRESS; none where `start` does not announce it.
Result<ProgressMemory> receive_progress_memory(Connection* connection, const EngineStart& start);

// The weights that came with CONFIG.
Result<LoadedWeights> open_weights(const EngineStart& start, UniqueFd fd);

Result<void> send_message(Connection* connection, MessageType type, std::uint32_t epoch, std::string payload);

// Says the last words and gives the exit status. A connection that is gone means that nobody listens: the other side
// ended normally. `starting`: a configuration that cannot work is told from a failure that a restart may cure.
int end_with(Connection* connection, std::uint32_t epoch, const Error& error, bool starting);

}  // namespace chorus
