#include "parallel/transport/tcp_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "net/tcp.h"
#include "parallel/store/store_check.h"

namespace chorus {
namespace {

constexpr int connect_again_ms = 20;

// One attempt at one address. The error's text says why not.
Result<UniqueFd> connect_once(const tcp::Address& address, Nanoseconds deadline) {
  CHORUS_TRY(UniqueFd socket, tcp::begin_connect(address));
  CHORUS_TRY(const bool answered, wait_for_socket(socket.get(), POLLOUT, deadline));
  if (!answered) return fail(ErrorCode::deadline_exceeded, "connect: no answer");
  CHORUS_TRY_VOID(tcp::finish_connect(socket.get()));
  return socket;
}

}  // namespace

Result<UniqueFd> listen_tcp(const std::string& address, int port, int backlog) {
  CHORUS_TRY(const auto addresses, tcp::resolve(address, port));
  return tcp::listen(addresses.front(), backlog);
}

Result<UniqueFd> connect_tcp(const std::string& host, int port, Nanoseconds deadline) {
  const Nanoseconds start = monotonic_now();
  std::string reason;
  while (true) {
    const auto addresses = tcp::resolve(host, port, deadline);
    // The last round may begin when no time is left to ask: what the one before met says more.
    const bool out_of_time = !addresses.ok() && addresses.error().code == ErrorCode::deadline_exceeded;
    if (!addresses.ok() && (reason.empty() || !out_of_time)) reason = addresses.error().message;
    for (const tcp::Address& address : addresses.ok() ? *addresses : std::vector<tcp::Address>{}) {
      auto connected = connect_once(address, deadline);
      if (connected.ok()) return connected;
      reason = connected.error().message;
    }
    const int left_ms = milliseconds_until(deadline);
    if (left_ms == 0) {
      return fail(ErrorCode::deadline_exceeded, "no connection to {} port {} within {} ms: {}", host, port,
                  (monotonic_now() - start) / 1'000'000, reason);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min(left_ms, connect_again_ms)));
  }
}

Result<bool> wait_for_socket(int socket, short events, Nanoseconds deadline) {
  while (true) {
    pollfd item{socket, events, 0};
    const int count = ::poll(&item, 1, milliseconds_until(deadline));
    if (count > 0) return true;
    if (count == 0) return false;
    if (errno != EINTR) return fail(ErrorCode::internal, "poll: {}", std::strerror(errno));
  }
}

Result<void> send_all(int socket, std::string_view bytes, Nanoseconds deadline, const std::string& peer) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      CHORUS_TRY(const bool ready, wait_for_socket(socket, POLLOUT, deadline));
      if (!ready) return fail(ErrorCode::deadline_exceeded, "{} takes no bytes, {} are left", peer, bytes.size());
    } else if (errno != EINTR) {
      return fail(ErrorCode::unavailable, "sending to {}: {}", peer, std::strerror(errno));
    }
  }
  return {};
}

Result<void> receive_all(int socket, void* bytes, std::size_t count, Nanoseconds deadline, const std::string& peer) {
  auto* to = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t received = ::recv(socket, to, count, 0);
    if (received > 0) {
      to += received;
      count -= static_cast<std::size_t>(received);
    } else if (received == 0) {
      return fail(ErrorCode::unavailable, "{} closed the connection", peer);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      CHORUS_TRY(const bool ready, wait_for_socket(socket, POLLIN, deadline));
      if (!ready) return fail(ErrorCode::deadline_exceeded, "{} gave no answer in time", peer);
    } else if (errno != EINTR) {
      return fail(ErrorCode::unavailable, "receiving from {}: {}", peer, std::strerror(errno));
    }
  }
  return {};
}

}  // namespace chorus
