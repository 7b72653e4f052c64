#include "dist/tcp_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "dist/store_check.h"

namespace chorus {
namespace {

constexpr int connect_again_ms = 20;
// A node that loses power says nothing: its connections are given up after about this long.
constexpr int silence_ms_max = 10'000;

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<Addresses> resolve(const std::string& host, int port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error != 0) {
    return fail(ErrorCode::unavailable, "host {} cannot be resolved: {}", host, ::gai_strerror(error));
  }
  return Addresses(list, &::freeaddrinfo);
}

void set_option(int socket, int level, int option, int value) {
  (void)::setsockopt(socket, level, option, &value, sizeof value);  // each is an improvement, none a need
}

void set_stream_options(int socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 5);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, silence_ms_max);
}

// One attempt at one address. The error's text says why not.
Result<UniqueFd> connect_once(const addrinfo& address, Nanoseconds deadline) {
  UniqueFd socket(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail(ErrorCode::internal, "socket: {}", std::strerror(errno));
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return fail(ErrorCode::unavailable, "connect: {}", std::strerror(errno));
    CHORUS_TRY(const bool answered, wait_for_socket(socket.get(), POLLOUT, deadline));
    if (!answered) return fail(ErrorCode::deadline_exceeded, "connect: no answer");
    int error = 0;
    socklen_t length = sizeof error;
    (void)::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return fail(ErrorCode::unavailable, "connect: {}", std::strerror(error));
  }
  set_stream_options(socket.get());
  return socket;
}

Result<sockaddr_storage> name_of_socket(int socket, socklen_t* length) {
  sockaddr_storage name{};
  *length = sizeof name;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&name), length) != 0) {
    return fail(ErrorCode::internal, "getsockname: {}", std::strerror(errno));
  }
  return name;
}

}  // namespace

Result<UniqueFd> listen_tcp(const std::string& address, int port, int backlog) {
  CHORUS_TRY(const Addresses addresses, resolve(address, port, AI_PASSIVE));
  UniqueFd socket(::socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail(ErrorCode::internal, "socket: {}", std::strerror(errno));
  set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(socket.get(), addresses->ai_addr, addresses->ai_addrlen) != 0 || ::listen(socket.get(), backlog) != 0) {
    return fail(ErrorCode::unavailable, "cannot listen on {} port {}: {}", address, port, std::strerror(errno));
  }
  return socket;
}

Result<UniqueFd> accept_tcp(int listener) {
  UniqueFd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.valid()) {
    set_stream_options(socket.get());
    return socket;
  }
  // What went wrong with one connection is not the listener's trouble.
  if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    return fail(ErrorCode::resource_exhausted, "accept: {}", std::strerror(errno));
  }
  return UniqueFd();
}

Result<UniqueFd> connect_tcp(const std::string& host, int port, Nanoseconds deadline) {
  const Nanoseconds start = monotonic_now();
  while (true) {
    std::string reason;
    auto addresses = resolve(host, port, 0);
    if (!addresses.ok()) reason = addresses.error().message;
    for (const addrinfo* a = addresses.ok() ? addresses->get() : nullptr; a != nullptr; a = a->ai_next) {
      auto connected = connect_once(*a, deadline);
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

Result<std::string> local_address_of(int socket) {
  socklen_t length = 0;
  CHORUS_TRY(const sockaddr_storage name, name_of_socket(socket, &length));
  char text[NI_MAXHOST];
  const int error =
      ::getnameinfo(reinterpret_cast<const sockaddr*>(&name), length, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  if (error != 0) return fail(ErrorCode::internal, "getnameinfo: {}", ::gai_strerror(error));
  return std::string(text);
}

Result<int> local_port_of(int socket) {
  socklen_t length = 0;
  CHORUS_TRY(const sockaddr_storage name, name_of_socket(socket, &length));
  const auto port = name.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port
                                               : reinterpret_cast<const sockaddr_in*>(&name)->sin_port;
  return static_cast<int>(ntohs(port));
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
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
