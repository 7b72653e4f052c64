// The waits of this room on the non-blocking sockets of net/tcp.h, each with a deadline (base/clock.h's nanoseconds).
// Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

// `address`: of this host, in numbers or as a name; port 0: the system chooses.
Result<UniqueFd> listen_tcp(const std::string& address, int port, int backlog);
// Tries again until the deadline: the other side may not listen yet.
Result<UniqueFd> connect_tcp(const std::string& host, int port, Nanoseconds deadline);

// poll(2) for `events`; false: the deadline passed first.
Result<bool> wait_for_socket(int socket, short events, Nanoseconds deadline);

// All of the bytes; `peer` is for the message. Errors: deadline_exceeded, unavailable (the peer closed).
Result<void> send_all(int socket, std::string_view bytes, Nanoseconds deadline, const std::string& peer);
Result<void> receive_all(int socket, void* bytes, std::size_t count, Nanoseconds deadline, const std::string& peer);

}  // namespace chorus
