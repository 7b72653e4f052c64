// What an engine and a worker process have in common: how they begin and how they end.
#pragma once

#include <cstdint>
#include <functional>
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

// What a process does that the parent started with a socket: makes a connection of it and calls `run`, whose exit
// status it returns. It dies with the process at the other end (is that gone already, it returns at once), leaves
// Ctrl-C and SIGTERM to it, and is `comm` in `ps -o comm`. An error before `run` is logged as the process's `name`. The
// socket stays open until the process ends, so that the other side learns of the end and of the exit status together.
int child_process_main(int socket_fd, const char* comm, const char* name, const std::function<int(Connection*)>& run);

// HELLO, then the CONFIG that answers it. `cancelled`: SHUTDOWN came instead, as where another one could not start.
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
