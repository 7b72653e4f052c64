#include "server/http/connection.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "base/check.h"

namespace chorus {

namespace asio = boost::asio;

class HttpConnection::OpenExchange final : public Exchange {
 public:
  OpenExchange(HttpConnection* connection, HttpRequest request)
      : connection_(connection), request_(std::move(request)), begun_at_(monotonic_now()) {}

  const HttpRequest& request() const override { return request_; }
  std::string take_body() override { return std::exchange(request_.body, {}); }
  bool is_open() const override { return connection_ != nullptr; }
  void on_gone(std::function<void()> callback) override { on_gone_ = std::move(callback); }
  void on_room(std::function<void()> callback) override { on_room_ = std::move(callback); }

  void respond(HttpResponse response) override {
    if (!is_open()) return;
    CHECK(!streams_, "a response in the middle of a stream");
    const bool keep_alive = keeps_alive();
    status_ = response.status;
    std::string head = response_head(response, BodyEnd::by_length, keep_alive, connection_->host_.date);
    if (request_.method != "HEAD") head += response.body;
    connection_->send(head);
    finish(keep_alive);
  }

  void begin_stream(HttpResponse head) override {
    if (!is_open()) return;
    CHECK(!streams_, "a stream that has begun");
    streams_ = true;
    status_ = head.status;
    const BodyEnd end = request_.http_1_0 ? BodyEnd::by_close : BodyEnd::by_chunks;
    connection_->send(response_head(head, end, keeps_alive(), connection_->host_.date));
  }

  void write(std::string_view data) override {
    if (!is_open() || data.empty()) return;
    CHECK(streams_, "no stream");
    if (request_.http_1_0) return connection_->send(data);
    connection_->send(fmt::format("{:x}\r\n{}\r\n", data.size(), data));
  }

  void end_stream() override {
    if (!is_open()) return;
    if (!request_.http_1_0) connection_->send("0\r\n\r\n");
    finish(keeps_alive());
  }

  void cut() override {
    if (!is_open()) return;
    HttpConnection* const connection = detach();
    connection->exchange_.reset();
    connection->close_when_sent();
  }

  bool has_room() const override {
    if (!is_open()) return true;
    const bool room = connection_->unsent() < connection_->host_.limits.send_buffer_bytes;
    if (!room) was_full_ = true;
    return room;
  }

  // What was sent since has made room.
  void tell_of_room() {
    if (!was_full_ || connection_->unsent() > connection_->host_.limits.send_buffer_bytes / 2) return;
    was_full_ = false;
    if (on_room_) on_room_();
  }
  // The client has gone.
  void tell_of_end() {
    detach();
    on_room_ = {};
    if (const auto callback = std::exchange(on_gone_, {})) callback();
  }

 private:
  bool keeps_alive() const { return request_.keep_alive && !request_.http_1_0 && !connection_->host_.draining; }
  HttpConnection* detach() { return std::exchange(connection_, nullptr); }
  void finish(bool keep_alive) {
    on_gone_ = {};
    on_room_ = {};
    const auto& answered = connection_->host_.application.answered;
    if (answered) answered(request_, status_, monotonic_now() - begun_at_);
    detach()->finish_exchange(keep_alive);
  }

  HttpConnection* connection_;  // nullptr: the answer is whole, or the client has gone
  HttpRequest request_;
  Nanoseconds begun_at_;
  int status_ = 0;
  std::function<void()> on_gone_, on_room_;
  bool streams_ = false;
  mutable bool was_full_ = false;
};

HttpConnection::HttpConnection(ConnectionHost& host, HttpTransport transport)
    : host_(host),
      transport_(std::move(transport)),
      waits_(host.loop),
      reader_(host.limits),
      idle_since_(monotonic_now()) {}

void HttpConnection::start() {
  boost::system::error_code error;
  waits_.assign(transport_.fd(), error);
  if (error) return close();
  wait_to_read();
}

bool HttpConnection::may_read() const {
  if (closed_ || input_ended_) return false;
  return lingering_ || exchange_ == nullptr || reader_.unread_bytes() < host_.limits.read_ahead_bytes_max;
}

void HttpConnection::wait_to_read() {
  if (reading_ || !may_read()) return;
  reading_ = true;
  waits_.async_wait(waits_.wait_read, [self = shared_from_this()](const boost::system::error_code& error) {
    self->reading_ = false;
    if (error || self->closed_) return;
    self->read();
    if (std::exchange(self->write_waits_to_read_, false)) self->flush();
  });
}

void HttpConnection::read() {
  const TransportResult result = transport_.read(host_.read_buffer);
  switch (result.kind) {
    case TransportResult::Kind::broken:
      return close();
    case TransportResult::Kind::ended:
      return on_end_of_input();
    case TransportResult::Kind::would_wait:
      if (!result.waits_crosswise) break;
      read_waits_to_write_ = true;
      return wait_to_write();
    case TransportResult::Kind::moved:
      if (closing_) break;  // nothing more is answered
      reader_.feed({host_.read_buffer.data(), result.bytes});
      process();
      count_held_bytes();
  }
  wait_to_read();
}

void HttpConnection::count_held_bytes() {
  const std::size_t now = closed_ ? 0 : reader_.body_bytes() + reader_.unread_bytes();
  host_.held_bytes += now - std::exchange(held_bytes_, now);
}

void HttpConnection::on_end_of_input() {
  input_ended_ = true;
  if (exchange_ != nullptr || lingering_) return close();
  close_when_sent();
}

void HttpConnection::process() {
  if (processing_) return;
  processing_ = true;
  while (exchange_ == nullptr && !closing_ && !closed_) {
    const RequestReader::Step step = reader_.advance();
    if (step == RequestReader::Step::needs_bytes) {
      if (reader_.phase() == RequestReader::Phase::head && head_since_ == 0) head_since_ = monotonic_now();
      break;
    }
    if (step == RequestReader::Step::refused) {
      refuse(error_response(reader_.refusal().status, reader_.refusal().message));
    } else if (step == RequestReader::Step::head) {
      if (!take_head()) break;
    } else {
      dispatch(reader_.take());
    }
  }
  processing_ = false;
}

// False: its request is refused and its body will not be read.
bool HttpConnection::take_head() {
  head_since_ = 0;
  body_since_ = monotonic_now();
  const HttpRequest& head = reader_.request();
  refusal_ = host_.application.admit(head);
  const auto expected = head.field("expect");
  if (!refusal_ && expected && !reader_.expects_continue()) {
    refusal_ = error_response(417, "the only Expect here is 100-continue");
  }
  if (!head.has_body) return true;
  if (refusal_) {
    refuse(*refusal_);
    return false;
  }
  if (host_.held_bytes > host_.limits.held_bytes_max) {
    HttpResponse full = error_response(503, "too many requests are being read: try again later");
    full.fields.emplace_back("retry-after", "1");
    refuse(full);
    return false;
  }
  if (expected && !head.http_1_0) send("HTTP/1.1 100 Continue\r\n\r\n");
  return true;
}

void HttpConnection::dispatch(HttpRequest request) {
  body_since_ = 0;
  exchange_ = std::make_shared<OpenExchange>(this, std::move(request));
  const std::shared_ptr<OpenExchange> exchange = exchange_;
  if (auto refusal = std::exchange(refusal_, std::nullopt)) return exchange->respond(std::move(*refusal));
  host_.application.handle(exchange);
}

void HttpConnection::refuse(const HttpResponse& response) {
  send(response_head(response, BodyEnd::by_length, false, host_.date) + response.body);
  close_when_sent();
}

void HttpConnection::finish_exchange(bool keep_alive) {
  exchange_.reset();
  idle_since_ = monotonic_now();
  if (!keep_alive) return close_when_sent();
  if (processing_) return;  // it goes on by itself
  asio::post(host_.loop, [self = shared_from_this()] {
    self->process();
    self->count_held_bytes();
    self->wait_to_read();
  });
}

void HttpConnection::close_when_sent() {
  closing_ = true;
  flush();
}

void HttpConnection::send(std::string_view bytes) {
  if (closed_) return;
  if (unsent() == 0) progress_at_ = monotonic_now();
  output_ += bytes;
  if (flush_is_due_ || writing_) return;
  flush_is_due_ = true;
  asio::post(host_.loop, [self = shared_from_this()] {
    self->flush_is_due_ = false;
    self->flush();
  });
}

void HttpConnection::flush() {
  while (!closed_ && unsent() > 0) {
    const TransportResult result = transport_.write(std::string_view(output_).substr(sent_));
    if (result.kind == TransportResult::Kind::would_wait) {
      write_waits_to_read_ = result.waits_crosswise;
      return write_waits_to_read_ ? wait_to_read() : wait_to_write();
    }
    if (result.kind != TransportResult::Kind::moved) return close();
    sent_ += result.bytes;
    progress_at_ = monotonic_now();
    on_sent();
  }
  if (closed_ || !closing_ || lingering_) return;
  if (input_ended_) return close();
  lingering_ = true;
  lingers_since_ = monotonic_now();
  transport_.end_writing();
  wait_to_read();
}

// The bytes that are gone are given back once they are many, and all memory with the last of them.
void HttpConnection::on_sent() {
  constexpr std::size_t kept_bytes_max = 4096;
  if (unsent() == 0) {
    output_.clear();
    sent_ = 0;
    if (output_.capacity() > kept_bytes_max) output_.shrink_to_fit();
  } else if (sent_ > output_.size() / 2) {
    output_.erase(0, sent_);
    sent_ = 0;
  }
  if (const std::shared_ptr<OpenExchange> exchange = exchange_) exchange->tell_of_room();
}

void HttpConnection::wait_to_write() {
  if (writing_) return;
  writing_ = true;
  waits_.async_wait(waits_.wait_write, [self = shared_from_this()](const boost::system::error_code& error) {
    self->writing_ = false;
    if (error) return;
    self->flush();
    if (std::exchange(self->read_waits_to_write_, false) && !self->closed_) self->read();
  });
}

// Why the peer is too slow; empty: it is not.
std::string_view HttpConnection::slowness(Nanoseconds now) const {
  const HttpLimits& limits = host_.limits;
  if (head_since_ != 0 && now - head_since_ > limits.head_timeout) return "the head took too long";
  if (body_since_ == 0 || exchange_ != nullptr) return {};
  const auto seconds = static_cast<double>(now - body_since_ - limits.body_grace) / static_cast<double>(http_second);
  const double wanted = seconds * static_cast<double>(limits.body_bytes_per_second_min);
  return static_cast<double>(reader_.body_bytes()) < wanted ? "the body comes too slowly" : std::string_view();
}

void HttpConnection::look_at_deadlines(Nanoseconds now) {
  const HttpLimits& limits = host_.limits;
  if (unsent() > 0 && now - progress_at_ > limits.write_stall_timeout) return close();
  if (lingering_ && now - lingers_since_ > limits.linger_timeout) return close();
  if (closing_ || exchange_ != nullptr) return;
  if (const std::string_view why = slowness(now); !why.empty()) return refuse(error_response(408, why));
  const bool idle = reader_.phase() == RequestReader::Phase::idle && unsent() == 0;
  if (idle && now - idle_since_ > limits.idle_timeout) close();
}

void HttpConnection::drain() {
  // A request that is here and was not read yet would be lost.
  if (exchange_ == nullptr && !closing_) read();
  if (closed_ || exchange_ != nullptr || reader_.phase() != RequestReader::Phase::idle) return;
  if (unsent() > 0) return close_when_sent();
  close();
}

void HttpConnection::close() {
  if (closed_) return;
  closed_ = true;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  boost::system::error_code ignored;
  waits_.cancel(ignored);
  waits_.release();
  transport_ = HttpTransport(UniqueFd());
  count_held_bytes();
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->tell_of_end();
  host_.on_closed(this);
}

}  // namespace chorus
