#include "client/http_client.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "client/http_exchange.h"
#include "net/tcp.h"
#include "net/unix_socket.h"

namespace chorus {
namespace {

constexpr int connect_timeout_ms = 10'000;
constexpr int send_timeout_ms = 30'000;
constexpr std::size_t fetched_bytes_max = 16u << 20;
constexpr int look_ms = 100;  // how often `stop` is asked

Result<void> wait_for(int fd, short events, int timeout_ms, const std::function<bool()>& stop, const char* what) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  while (true) {
    if (stop && stop()) return fail(ErrorCode::cancelled, "stopped");
    pollfd item{fd, events, 0};
    if (::poll(&item, 1, std::min(look_ms, milliseconds_until(deadline))) > 0) return {};
    if (milliseconds_until(deadline) == 0) {
      return fail(ErrorCode::deadline_exceeded, "{}: nothing for {} s", what, timeout_ms / 1000);
    }
  }
}

}  // namespace

Result<UniqueFd> connect_to(const Endpoint& endpoint, const std::function<bool()>& stop) {
  if (!endpoint.path.empty()) return connect_unix(endpoint.path, "unix:" + endpoint.path);
  CHORUS_TRY(const std::vector<tcp::Address> addresses,
             tcp::resolve(endpoint.host, endpoint.port, deadline_after(connect_timeout_ms), stop));
  Error last;
  for (const tcp::Address& address : addresses) {
    Result<UniqueFd> socket = tcp::begin_connect(address);
    if (socket.ok()) {
      CHORUS_TRY_VOID(wait_for(socket->get(), POLLOUT, connect_timeout_ms, stop, "connecting"));
      tcp::let_peer_be_busy(socket->get());
      const Result<void> connected = tcp::finish_connect(socket->get());
      if (connected.ok()) return socket;
      last = connected.error();
    } else {
      last = socket.error();
    }
  }
  return fail(ErrorCode::unavailable, "no server at {}: {}; start one with `chorus serve MODEL`, or give its URL",
              endpoint.text(), last.message);
}

std::string request_text(const Endpoint& endpoint, const std::string& method, const std::string& target,
                         const std::string& body, const std::vector<std::string>& headers) {
  std::string text =
      fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", method, target, endpoint.host_field());
  if (!endpoint.key.empty()) text += fmt::format("Authorization: Bearer {}\r\n", endpoint.key);
  if (!body.empty()) {
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  }
  for (const std::string& header : headers) text += header + "\r\n";
  return text + "\r\n" + body;
}

Result<void> call(const Endpoint& endpoint, const HttpCall& call) {
  CHORUS_TRY(UniqueFd socket, connect_to(endpoint, call.stop));
  HttpExchange exchange(std::move(socket), request_text(endpoint, call.method, call.target, call.body), call.on_body);
  while (true) {
    const bool writes = exchange.wants_to_write();
    CHORUS_TRY_VOID(wait_for(exchange.fd(), writes ? POLLOUT : POLLIN, writes ? send_timeout_ms : answer_timeout_ms,
                             call.stop, writes ? "sending the request" : "waiting for the answer"));
    CHORUS_TRY(const bool done, exchange.advance());
    if (done) return {};
  }
}

Result<std::string> fetch(const Endpoint& endpoint, const std::string& target, const std::string& body,
                          const std::function<bool()>& stop) {
  std::string answer;
  const auto on_body = [&](std::string_view piece) -> Result<void> {
    answer += piece;
    if (answer.size() <= fetched_bytes_max) return {};
    return fail(ErrorCode::invalid_argument, "the answer to {} is longer than {} bytes", target, fetched_bytes_max);
  };
  CHORUS_TRY_VOID(call(endpoint, {body.empty() ? "GET" : "POST", target, body, stop, on_body}));
  return answer;
}

}  // namespace chorus
