#include "parallel/launch/rendezvous_handover.h"

#include <fmt/ranges.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <vector>

#include "base/random_hex.h"
#include "net/connection.h"
#include "parallel/store/store_check.h"
#include "parallel/transport/tcp_socket.h"

namespace chorus {
namespace {

constexpr int hello_ms = 5'000;  // a process that connects says its rank at once
const std::string socket_key = "handover";

// The name's first byte is 0: no file, gone with its last user.
struct AbstractAddress {
  sockaddr_un address{};
  socklen_t bytes = 0;

  explicit AbstractAddress(const std::string& name) {
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), std::min(name.size(), sizeof address.sun_path - 1));
    bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 +
                                   std::min(name.size(), sizeof address.sun_path - 1));
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

Result<std::string> random_name() {
  CHORUS_TRY(const std::string digits, random_hex(16));
  return "chorus-" + digits;
}

Result<UniqueFd> unix_socket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail(ErrorCode::internal, "socket: {}", std::strerror(errno));
  return socket;
}

Result<void> check_user(int socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return fail(ErrorCode::internal, "getsockopt(SO_PEERCRED): {}", std::strerror(errno));
  }
  if (peer.uid == ::geteuid()) return {};
  return fail(ErrorCode::unavailable, "process {} belongs to user {}, not to {}", peer.pid, peer.uid, ::geteuid());
}

// One frame each way: who comes (its rank, in the epoch's place), and what he came for.
constexpr std::uint8_t hello_frame = 1, descriptor_frame = 2;
constexpr ConnectionLimits no_payload{.payload_bytes_max = 0, .send_queue_bytes_max = 4096};

// The rank that was served; -1: none, the caller was a stranger or went away.
int serve_one(int listener, std::span<const int> fds, const std::vector<bool>& served, Nanoseconds deadline) {
  UniqueFd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid() || !check_user(socket.get()).ok()) return -1;
  const auto caller = make_socket_connection(std::move(socket), no_payload);
  if (!caller.ok()) return -1;
  const int hello_within_ms = std::min(milliseconds_until(deadline), hello_ms);
  const auto hello = receive_within(caller->get(), hello_within_ms);
  if (!hello.ok() || hello->type != hello_frame) return -1;
  const std::size_t rank = hello->epoch;
  if (rank >= served.size() || served[rank]) return -1;
  const bool sent =
      (*caller)->send(descriptor_frame, 0, {}, fds[rank]).ok() && flush_within(caller->get(), hello_within_ms).ok();
  return sent ? static_cast<int>(rank) : -1;
}

}  // namespace

Result<void> hand_over_descriptors(Store& store, std::span<const int> fds, Nanoseconds deadline, int giver) {
  CHORUS_TRY(const std::string name, random_name());
  CHORUS_TRY(const UniqueFd listener, unix_socket());
  const AbstractAddress address(name);
  if (::bind(listener.get(), address.get(), address.bytes) != 0 || ::listen(listener.get(), SOMAXCONN) != 0) {
    return fail(ErrorCode::internal, "cannot listen on the abstract Unix socket {}: {}", name, std::strerror(errno));
  }
  CHORUS_TRY_VOID(store.set(socket_key, "at " + name, milliseconds_until(deadline)));
  std::vector<bool> served;
  for (const int fd : fds) served.push_back(static_cast<int>(served.size()) == giver || fd < 0);
  while (std::ranges::find(served, false) != served.end()) {
    CHORUS_TRY(const bool ready, wait_for_socket(listener.get(), POLLIN, deadline));
    if (!ready) {
      std::vector<int> missing;
      for (std::size_t rank = 0; rank < served.size(); ++rank) {
        if (!served[rank]) missing.push_back(static_cast<int>(rank));
      }
      return fail(ErrorCode::deadline_exceeded, "ranks {} did not come for what rank {} gives them",
                  fmt::join(missing, ", "), giver);
    }
    const int rank = serve_one(listener.get(), fds, served, deadline);
    if (rank >= 0) served[static_cast<std::size_t>(rank)] = true;
  }
  return {};
}

void refuse_descriptor(Store& store, const std::string& reason, Nanoseconds deadline) {
  (void)store.set(socket_key, "no " + reason, milliseconds_until(deadline));  // else the others' deadline tells
}

Result<UniqueFd> receive_descriptor(Store& store, int rank, Nanoseconds deadline, int giver) {
  CHORUS_TRY(const std::string published, store.get(socket_key, milliseconds_until(deadline)));
  if (!published.starts_with("at "))
    return fail(ErrorCode::unavailable, "rank {} failed: {}", giver, published.substr(3));
  const std::string name = published.substr(3);
  CHORUS_TRY(UniqueFd socket, unix_socket());
  const AbstractAddress address(name);
  // A full backlog answers EAGAIN; it is as long as the system allows, so a moment later there is room.
  while (::connect(socket.get(), address.get(), address.bytes) != 0) {
    if (errno != EAGAIN && errno != EINTR) {
      return fail(ErrorCode::unavailable, "rank {}'s Unix socket {}: connect: {}", giver, name, std::strerror(errno));
    }
    if (milliseconds_until(deadline) == 0) return fail(ErrorCode::deadline_exceeded, "rank {} does not accept", giver);
    (void)::poll(nullptr, 0, 5);
  }
  CHORUS_TRY_VOID(check_user(socket.get()));
  CHORUS_TRY(const auto connection, make_socket_connection(std::move(socket), no_payload));
  CHORUS_TRY_VOID(connection->send(hello_frame, static_cast<std::uint32_t>(rank), {}));
  CHORUS_TRY_VOID(flush_within(connection.get(), milliseconds_until(deadline)));
  auto answer = receive_within(connection.get(), milliseconds_until(deadline));
  if (!answer.ok()) return with_context(answer.error(), fmt::format("rank {} did not hand over its descriptor", giver));
  if (!answer->descriptor.valid()) return fail(ErrorCode::unavailable, "rank {} sent no descriptor", giver);
  return std::move(answer->descriptor);
}

}  // namespace chorus
