#include "client/http_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/clock.h"
#include "client/chat_stream.h"
#include "net/tcp.h"
#include "net/unique_fd.h"
#include "net/unix_socket.h"

namespace chorus {
namespace {

namespace http = boost::beast::http;

constexpr int connect_timeout_ms = 10'000;
constexpr int send_timeout_ms = 30'000;
constexpr int answer_timeout_ms = 600'000;  // between two pieces: the first waits in the server's queue
constexpr int look_ms = 100;                // how often `stop` is asked
constexpr std::uint32_t header_bytes_max = 64u << 10;
constexpr std::uint64_t body_bytes_max = 256u << 20;
constexpr std::size_t error_bytes_max = 64u << 10;

Result<void> wait_for(int fd, short events, int timeout_ms, const HttpCall& call, const char* what) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  while (true) {
    if (call.stop && call.stop()) return fail(ErrorCode::cancelled, "stopped");
    pollfd item{fd, events, 0};
    if (::poll(&item, 1, std::min(look_ms, milliseconds_until(deadline))) > 0) return {};
    if (milliseconds_until(deadline) == 0) {
      return fail(ErrorCode::deadline_exceeded, "{}: nothing for {} s", what, timeout_ms / 1000);
    }
  }
}

Result<UniqueFd> connect_to(const Endpoint& endpoint, const HttpCall& call) {
  if (!endpoint.path.empty()) return connect_unix(endpoint.path, "unix:" + endpoint.path);
  CHORUS_TRY(const std::vector<tcp::Address> addresses, tcp::resolve(endpoint.host, endpoint.port));
  Error last;
  for (const tcp::Address& address : addresses) {
    Result<UniqueFd> socket = tcp::begin_connect(address);
    if (socket.ok()) {
      CHORUS_TRY_VOID(wait_for(socket->get(), POLLOUT, connect_timeout_ms, call, "connecting"));
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

std::string request_text(const Endpoint& endpoint, const HttpCall& call) {
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", call.method, call.target,
                                 endpoint.host_field());
  if (!endpoint.key.empty()) text += fmt::format("Authorization: Bearer {}\r\n", endpoint.key);
  if (!call.body.empty()) {
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", call.body.size());
  }
  return text + "\r\n" + call.body;
}

Result<void> send_all(int socket, std::string_view text, const HttpCall& call) {
  while (!text.empty()) {
    CHORUS_TRY_VOID(wait_for(socket, POLLOUT, send_timeout_ms, call, "sending the request"));
    const ssize_t sent = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    // A server that refuses a request may close before it has read all of it: its answer says why.
    if (sent < 0) return {};
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
  return {};
}

// The answer, from the pieces in which it comes.
class Answer {
 public:
  explicit Answer(const HttpCall& call) : call_(call) {
    parser_.eager(true);
    parser_.header_limit(header_bytes_max);
    parser_.body_limit(body_bytes_max);
  }
  bool is_done() const { return parser_.is_done(); }

  Result<void> feed(std::string_view bytes) {
    pending_ += bytes;
    while (!pending_.empty() && !parser_.is_done()) {
      boost::system::error_code error;
      const std::size_t used = parser_.put(boost::asio::buffer(pending_), error);
      pending_.erase(0, used);
      if (error && error != http::error::need_more) return broken(error.message());
      CHORUS_TRY_VOID(hand_on());
      if (error || used == 0) return {};
    }
    return {};
  }

  Result<void> end() {
    boost::system::error_code error;
    if (!parser_.is_done()) parser_.put_eof(error);
    if (error || !parser_.is_done()) return broken("the server closed the connection");
    const unsigned status = parser_.get().result_int();
    if (status == 200) return {};
    return fail(status >= 400 && status < 500 ? ErrorCode::invalid_argument : ErrorCode::unavailable,
                "the server refused ({}): {}", status, error_text(refusal_));
  }

 private:
  static Error broken(const std::string& why) { return fail(ErrorCode::unavailable, "the answer broke off: {}", why); }
  Result<void> hand_on() {
    if (!parser_.is_header_done()) return {};
    const std::string body = std::exchange(parser_.get().body(), {});
    if (body.empty()) return {};
    if (parser_.get().result_int() == 200) return call_.on_body(body);
    refusal_ += body.substr(0, error_bytes_max - std::min(error_bytes_max, refusal_.size()));
    return {};
  }

  const HttpCall& call_;
  http::response_parser<http::string_body> parser_;
  std::string pending_;  // what the parser has not taken yet
  std::string refusal_;
};

Result<void> receive(int socket, const HttpCall& call) {
  Answer answer(call);
  std::array<char, 16384> piece;
  while (!answer.is_done()) {
    CHORUS_TRY_VOID(wait_for(socket, POLLIN, answer_timeout_ms, call, "waiting for the answer"));
    const ssize_t received = ::recv(socket, piece.data(), piece.size(), MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (received < 0) return fail(ErrorCode::unavailable, "the answer broke off: {}", std::strerror(errno));
    if (received == 0) break;
    CHORUS_TRY_VOID(answer.feed({piece.data(), static_cast<std::size_t>(received)}));
  }
  return answer.end();
}

}  // namespace

std::string Endpoint::host_field() const {
  if (!path.empty()) return "localhost";
  return host.find(':') == host.npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

std::string Endpoint::text() const {
  return path.empty() ? "http://" + host_field() : "unix:" + path;
}

bool is_url(std::string_view text) {
  return text.find("://") != text.npos || text.starts_with("unix:");
}

Result<Endpoint> parse_url(std::string_view url) {
  const auto wrong = [url] {
    return fail(ErrorCode::invalid_argument, "\"{}\" is no server's URL: give http://HOST:PORT or unix:PATH", url);
  };
  Endpoint endpoint;
  if (url.starts_with("unix:")) {
    endpoint.path = url.substr(5);
    return endpoint.path.empty() ? Result<Endpoint>(wrong()) : endpoint;
  }
  if (url.starts_with("https://")) {
    return fail(ErrorCode::invalid_argument,
                "{}: this client speaks plain HTTP alone; reach the server through a tunnel (ssh -L "
                "8000:localhost:8000 HOST, then http://127.0.0.1:8000) or its Unix socket (--uds)",
                url);
  }
  if (!url.starts_with("http://")) return wrong();
  std::string_view rest = url.substr(7);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const std::size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;
  if (bracket == rest.npos) return wrong();
  const std::size_t colon = rest.find(':', bracket);
  endpoint.host = bracket > 0 ? rest.substr(1, bracket - 1) : rest.substr(0, colon);
  endpoint.port = 80;
  if (colon != rest.npos) {
    const std::string_view digits = rest.substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), endpoint.port);
    if (error != std::errc() || end != digits.data() + digits.size()) return wrong();
  }
  const bool is_plain = std::ranges::all_of(endpoint.host, [](unsigned char c) { return c > ' ' && c < 127; });
  if (endpoint.host.empty() || !is_plain || endpoint.host.find_first_of("/@?#") != std::string::npos) return wrong();
  if (endpoint.port < 1 || endpoint.port > 65535) return wrong();
  return endpoint;
}

Result<void> call(const Endpoint& endpoint, const HttpCall& call) {
  CHORUS_TRY(const UniqueFd socket, connect_to(endpoint, call));
  CHORUS_TRY_VOID(send_all(socket.get(), request_text(endpoint, call), call));
  return receive(socket.get(), call);
}

}  // namespace chorus
