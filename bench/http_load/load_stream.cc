#include "load_stream.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <utility>

namespace chorus::http_load {
namespace {

constexpr std::string_view event_begin = "data: {";
constexpr std::string_view last_event = "data: [DONE]";
constexpr std::string_view last_chunk = "\r\n0\r\n\r\n";
// Longer than what is looked for, so that what comes in two pieces is found.
constexpr std::size_t kept_bytes = 4096;

float seconds(Nanoseconds time) {
  return static_cast<float>(static_cast<double>(time) * 1e-9);
}

std::uint64_t number_after(std::string_view text, std::string_view name) {
  const std::size_t at = text.rfind(name);
  std::uint64_t number = 0;
  if (at != text.npos) std::from_chars(text.data() + at + name.size(), text.data() + text.size(), number);
  return number;
}

}  // namespace

bool LoadStream::begin(Nanoseconds now) {
  auto socket = tcp::begin_connect(*server_);
  if (!socket.ok()) {
    fail(socket.error().message);
    return false;
  }
  socket_ = std::move(*socket);
  send_again(now);
  return true;
}

void LoadStream::send_again(Nanoseconds now) {
  under_way_ = true;
  sent_ = looked_at_ = body_bytes_ = body_at_ = 0;
  received_.clear();
  status_ = 0;
  events_ = 0;
  begun_at_ = now;
}

bool LoadStream::resume(Nanoseconds now) {
  paused_ = false;
  send_again(now);
  return write();
}

bool LoadStream::write() {
  while (sent_ < request_.size()) {
    const ssize_t bytes = ::send(socket_.get(), request_.data() + sent_, request_.size() - sent_, MSG_NOSIGNAL);
    if (bytes < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINPROGRESS)) return true;
    if (bytes < 0) {
      fail("cannot send");
      return false;
    }
    sent_ += static_cast<std::size_t>(bytes);
  }
  return true;
}

bool LoadStream::read(char* buffer, std::size_t bytes, Nanoseconds now) {
  const ssize_t received = ::recv(socket_.get(), buffer, bytes, 0);
  if (received < 0 && errno == EAGAIN) return true;
  if (received <= 0) {
    if (under_way_) fail(received == 0 ? "the connection was closed in the middle" : "the connection broke");
    socket_.reset();
    return false;
  }
  take({buffer, static_cast<std::size_t>(received)}, now);
  return socket_.valid();
}

void LoadStream::take(std::string_view bytes, Nanoseconds now) {
  received_ += bytes;
  if (status_ == 0) take_head();
  if (status_ == 0) return;
  if (chunked_) take_events(now);
  if (is_whole()) finish(now);
}

void LoadStream::take_head() {
  const std::size_t end = received_.find("\r\n\r\n");
  if (end == received_.npos) return;
  const std::string_view head = std::string_view(received_).substr(0, end);
  status_ = static_cast<int>(number_after(head, "HTTP/1.1 "));
  chunked_ = head.find("transfer-encoding: chunked") != head.npos;
  body_bytes_ = number_after(head, "content-length: ");
  body_at_ = looked_at_ = end + 4;
}

void LoadStream::take_events(Nanoseconds now) {
  std::size_t found = 0;
  for (std::size_t at = received_.find(event_begin, looked_at_); at != received_.npos;
       at = received_.find(event_begin, looked_at_)) {
    looked_at_ = at + event_begin.size();
    ++found;
  }
  if (found > 0) {
    if (tally_->records) {
      if (events_ == 0) {
        tally_->first_token_s.push_back(seconds(now - begun_at_));
      } else {
        tally_->between_tokens_s.push_back(seconds(now - last_event_at_));
      }
      for (std::size_t i = 1; i < found; ++i) tally_->between_tokens_s.push_back(0);
    }
    events_ += found;
    tally_->events += found;
    last_event_at_ = now;
  }
  // What was looked at goes, but for what the end is found in.
  if (looked_at_ > 4 * kept_bytes) {
    received_.erase(0, looked_at_ - kept_bytes);
    looked_at_ = kept_bytes;
  }
}

bool LoadStream::is_whole() const {
  if (chunked_) return received_.ends_with(last_chunk);
  return received_.size() >= body_at_ + body_bytes_;
}

void LoadStream::finish(Nanoseconds now) {
  under_way_ = false;
  if (status_ == 429 || status_ == 503) {
    ++tally_->refused;
    if (tally_->records) tally_->refusal_s.push_back(seconds(now - begun_at_));
    paused_ = true;
    return;
  } else if (status_ != 200) {
    fail(fmt::format("status {}: {}", status_, received_.substr(body_at_, 200)));
  } else if (chunked_ &&
             received_.find(last_event, received_.size() < kept_bytes ? 0 : received_.size() - kept_bytes) ==
                 received_.npos) {
    fail("a stream ended without [DONE]");
  } else {
    ++tally_->requests;
    tally_->tokens += number_after(received_, "\"completion_tokens\":");
    if (tally_->records) tally_->request_s.push_back(seconds(now - begun_at_));
  }
  if (!stopping_ && socket_.valid()) send_again(now);
}

void LoadStream::fail(std::string_view why) {
  ++tally_->failed;
  if (tally_->first_failure.empty()) tally_->first_failure = why;
  under_way_ = false;
  socket_.reset();
}

}  // namespace chorus::http_load
