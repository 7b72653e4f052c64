#include "client/http_exchange.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "client/error_text.h"
#include "net/tcp.h"

namespace chorus {
namespace {

namespace http = boost::beast::http;

constexpr std::uint32_t header_bytes_max = 64u << 10;
constexpr std::uint64_t body_bytes_max = 256u << 20;
constexpr std::size_t error_bytes_max = 64u << 10;

}  // namespace

// The answer, from the pieces in which it comes.
class HttpExchange::Answer {
 public:
  explicit Answer(OnBody on_body) : on_body_(std::move(on_body)) {
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

  static Error broken(const std::string& why) { return fail(ErrorCode::unavailable, "the answer broke off: {}", why); }

 private:
  Result<void> hand_on() {
    if (!parser_.is_header_done()) return {};
    const std::string body = std::exchange(parser_.get().body(), {});
    if (body.empty()) return {};
    if (parser_.get().result_int() == 200) return on_body_(body);
    refusal_ += body.substr(0, error_bytes_max - std::min(error_bytes_max, refusal_.size()));
    return {};
  }

  OnBody on_body_;
  http::response_parser<http::string_body> parser_;
  std::string pending_;  // what the parser has not taken yet
  std::string refusal_;
};

HttpExchange::HttpExchange(UniqueFd socket, std::string request, OnBody on_body)
    : socket_(std::move(socket)), request_(std::move(request)), answer_(std::make_unique<Answer>(std::move(on_body))) {}
HttpExchange::HttpExchange(HttpExchange&&) noexcept = default;
HttpExchange::~HttpExchange() = default;

Result<bool> HttpExchange::advance() {
  if (!std::exchange(connected_, true)) CHORUS_TRY_VOID(tcp::finish_connect(fd()));
  if (wants_to_write()) {
    CHORUS_TRY_VOID(send_some());
    return false;
  }
  std::array<char, 16384> piece;
  const ssize_t received = ::recv(fd(), piece.data(), piece.size(), MSG_DONTWAIT);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (received < 0) return Answer::broken(std::strerror(errno));
  CHORUS_TRY_VOID(answer_->feed({piece.data(), static_cast<std::size_t>(received)}));
  if (received > 0 && !answer_->is_done()) return false;
  CHORUS_TRY_VOID(answer_->end());
  return true;
}

Result<void> HttpExchange::send_some() {
  while (wants_to_write()) {
    const ssize_t sent = ::send(fd(), request_.data() + sent_, request_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    // A server that refuses a request may close before it has read all of it: its answer says why.
    sent_ = sent < 0 ? request_.size() : sent_ + static_cast<std::size_t>(sent);
  }
  return {};
}

}  // namespace chorus
