#include "server/control/control_server.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "net/unix_socket.h"

namespace chorus {
namespace {

constexpr std::size_t clients_max = 16;
constexpr std::size_t request_bytes_max = 4096;
constexpr std::size_t output_bytes_max = std::size_t{4} << 20;  // of a client that reads nothing
constexpr Nanoseconds idle_max = 60'000'000'000;

bool may_ask(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  if (peer.uid == 0 || peer.uid == ::geteuid()) return true;
  log(LogLevel::warning, "the control socket: user {} (pid {}) is refused", peer.uid, peer.pid);
  return false;
}

}  // namespace

Result<ControlServer> ControlServer::open(const std::string& path) {
  CHORUS_TRY(UnixListener listener, UnixListener::open(path, "--control-socket"));
  CHORUS_TRY(auto sockets, listener.descriptors(1));
  return ControlServer(std::move(listener), std::move(sockets.front()));
}

ControlServer::ControlServer(UnixListener listener, UniqueFd socket)
    : listener_(std::move(listener)), socket_(std::move(socket)) {}

void ControlServer::turn(const ControlHandler& handler) {
  accept();
  for (Client& client : clients_) {
    read(client, handler);
    write(client);
  }
  std::erase_if(clients_, [](const Client& client) { return client.ended; });
}

// Beyond clients_max they wait in the kernel's queue.
void ControlServer::accept() {
  while (clients_.size() < clients_max) {
    UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) return;
    if (!may_ask(socket.get())) continue;
    Client& client = clients_.emplace_back();
    client.socket = std::move(socket);
    client.heard_at = monotonic_now();
  }
}

void ControlServer::read(Client& client, const ControlHandler& handler) {
  char piece[request_bytes_max];
  while (client.output.size() < output_bytes_max) {
    const ssize_t count = ::recv(client.socket.get(), piece, sizeof piece, 0);
    if (count <= 0) {
      const bool waits = count < 0 && (errno == EAGAIN || errno == EINTR);
      client.ended = !waits || monotonic_now() - client.heard_at > idle_max;
      return;
    }
    client.heard_at = monotonic_now();
    client.input.append(piece, static_cast<std::size_t>(count));
    for (auto end = client.input.find('\n'); end != client.input.npos; end = client.input.find('\n')) {
      client.output += handler(std::string_view(client.input).substr(0, end)) + '\n';
      client.input.erase(0, end + 1);
    }
    if (client.input.size() > request_bytes_max) {
      client.ended = true;
      return;
    }
  }
}

void ControlServer::write(Client& client) {
  while (!client.output.empty()) {
    const ssize_t count = ::send(client.socket.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (count < 0) {
      client.ended = client.ended || (errno != EAGAIN && errno != EINTR);
      return;
    }
    client.output.erase(0, static_cast<std::size_t>(count));
  }
}

Result<std::string> ask_control(const std::string& path, const std::string& request, int timeout_ms) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  CHORUS_TRY(const UniqueFd socket, connect_unix(path, "--control-socket " + path));
  const std::string line = request + '\n';
  if (::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    return fail(ErrorCode::unavailable, "--control-socket {}: {}", path, std::strerror(errno));
  }
  std::string answer;
  while (!answer.ends_with('\n')) {
    pollfd item{socket.get(), POLLIN, 0};
    if (::poll(&item, 1, milliseconds_until(deadline)) == 0) {
      return fail(ErrorCode::deadline_exceeded, "--control-socket {}: no answer within {} ms", path, timeout_ms);
    }
    char piece[65536];
    const ssize_t count = ::recv(socket.get(), piece, sizeof piece, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return fail(ErrorCode::unavailable,
                  "--control-socket {}: the server closed the connection: it ends, or this "
                  "user is not its own",
                  path);
    }
    answer.append(piece, static_cast<std::size_t>(count));
  }
  answer.pop_back();
  return answer;
}

}  // namespace chorus
