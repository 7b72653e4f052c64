#include "net/tcp.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

namespace chorus::tcp {
namespace {

constexpr int silence_ms_max = 10'000;
constexpr int resolve_timeout_ms = 10'000;
constexpr int look_ms = 100;  // how often `stop` is asked

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

Result<UniqueFd> make_socket(const Address& address) {
  UniqueFd socket(::socket(address.name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail(ErrorCode::internal, "socket: {}", std::strerror(errno));
  return socket;
}

const sockaddr* name_of(const Address& address) {
  return reinterpret_cast<const sockaddr*>(&address.name);
}

Result<std::vector<Address>> ask_resolver(const std::string& host, int port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | flags;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error != 0) {
    return fail(ErrorCode::unavailable, "host \"{}\" cannot be resolved: {}", host, ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  std::vector<Address> addresses;
  for (const addrinfo* item = list; item != nullptr; item = item->ai_next) {
    Address& address = addresses.emplace_back();
    std::memcpy(&address.name, item->ai_addr, item->ai_addrlen);
    address.bytes = item->ai_addrlen;
  }
  return addresses;
}

}  // namespace

std::string Address::text() const {
  return fmt::format("{} port {}", host(), port());
}

std::string Address::host() const {
  char text[NI_MAXHOST];
  const bool named = ::getnameinfo(name_of(*this), bytes, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
  return named ? text : "unknown address";
}

bool Address::is_loopback() const {
  if (name.ss_family == AF_INET) {
    return ntohl(reinterpret_cast<const sockaddr_in*>(&name)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  }
  return name.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(&name)->sin6_addr);
}

bool Address::is_wildcard() const {
  if (name.ss_family == AF_INET) return reinterpret_cast<const sockaddr_in*>(&name)->sin_addr.s_addr == INADDR_ANY;
  return name.ss_family == AF_INET6 &&
         IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(&name)->sin6_addr);
}

int Address::port() const {
  return ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port
                                          : reinterpret_cast<const sockaddr_in*>(&name)->sin_port);
}

// getaddrinfo() has no deadline. A separate thread calls it; when it takes too long, nobody waits for that thread.
Result<std::vector<Address>> resolve(const std::string& host, int port, Nanoseconds deadline,
                                     const std::function<bool()>& stop) {
  if (auto numbers = ask_resolver(host, port, AI_NUMERICHOST); numbers.ok()) return numbers;
  const Nanoseconds begin = monotonic_now();
  std::promise<Result<std::vector<Address>>> promise;
  auto answer = promise.get_future();
  try {
    std::thread([host, port, promise = std::move(promise)]() mutable {
      promise.set_value(ask_resolver(host, port, 0));
    }).detach();
  } catch (const std::system_error& error) {
    return fail(ErrorCode::resource_exhausted, "no thread to resolve host \"{}\": {}", host, error.what());
  }
  while (true) {
    const int wait_ms = std::min(look_ms, milliseconds_until(deadline));
    if (answer.wait_for(std::chrono::milliseconds(wait_ms)) == std::future_status::ready) return answer.get();
    if (stop && stop()) return fail(ErrorCode::cancelled, "stopped");
    if (milliseconds_until(deadline) == 0) {
      return fail(ErrorCode::deadline_exceeded,
                  "host \"{}\" cannot be resolved: no answer within {} ms; give its address, or see that the name "
                  "server of this machine answers",
                  host, (monotonic_now() - begin) / 1'000'000);
    }
  }
}

Result<std::vector<Address>> resolve(const std::string& host, int port) {
  return resolve(host, port, deadline_after(resolve_timeout_ms));
}

Result<UniqueFd> listen(const Address& address, int backlog, bool shares_port) {
  CHORUS_TRY(UniqueFd socket, make_socket(address));
  set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (shares_port) set_option(socket.get(), SOL_SOCKET, SO_REUSEPORT, 1);
  if (::bind(socket.get(), name_of(address), address.bytes) != 0 || ::listen(socket.get(), backlog) != 0) {
    return fail(ErrorCode::unavailable, "cannot listen on {}: {}", address.text(), std::strerror(errno));
  }
  return socket;
}

Result<void> check_guarded(const Address& address, const ClusterKey* key) {
  if (key != nullptr || address.is_loopback()) return {};
  return fail(ErrorCode::invalid_argument,
              "{} can be reached from other machines and there is no cluster key: give --cluster-key-file FILE on "
              "every node ({}), or listen on 127.0.0.1",
              address.host(), how_to_make_a_key);
}

Result<UniqueFd> accept(int listener) {
  UniqueFd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.valid()) {
    set_stream_options(socket.get());
    return socket;
  }
  if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    return fail(ErrorCode::resource_exhausted, "accept: {}", std::strerror(errno));
  }
  return UniqueFd();  // what else went wrong concerns that one connection, which is gone
}

Result<UniqueFd> begin_connect(const Address& address) {
  CHORUS_TRY(UniqueFd socket, make_socket(address));
  set_stream_options(socket.get());
  if (::connect(socket.get(), name_of(address), address.bytes) != 0 && errno != EINPROGRESS) {
    return fail(ErrorCode::unavailable, "{}: {}", address.text(), std::strerror(errno));
  }
  return socket;
}

Result<void> finish_connect(int socket) {
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) return fail(ErrorCode::unavailable, "connect: {}", std::strerror(error));
  return {};
}

void let_peer_be_busy(int socket) {
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 0);
}

Result<Address> local_address(int socket) {
  Address address;
  address.bytes = sizeof address.name;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address.name), &address.bytes) == 0) return address;
  return fail(ErrorCode::internal, "getsockname: {}", std::strerror(errno));
}

Result<Address> peer_address(int socket) {
  Address address;
  address.bytes = sizeof address.name;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address.name), &address.bytes) == 0) return address;
  return fail(ErrorCode::unavailable, "getpeername: {}", std::strerror(errno));
}

}  // namespace chorus::tcp
