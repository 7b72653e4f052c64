#include "server/http/server.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <ctime>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/tcp.h"
#include "server/http/connection.h"

namespace chorus {

namespace asio = boost::asio;

class HttpServer::Implementation : public std::enable_shared_from_this<Implementation> {
 public:
  Implementation(asio::io_context& loop, HttpApplication application, const HttpLimits& limits, TlsContext tls)
      : sweep_(loop), host_{loop, limits, std::move(application), http_date(std::time(nullptr)),
                            0,    false,  std::move(tls),         {},
                            {}} {
    host_.on_closed = [this](HttpConnection* connection) { connections_.erase(connection); };
  }

  void start() { sweep_later(); }
  Result<void> listen_on(UniqueFd listener);
  void drain();
  void shut_down();
  std::size_t connections() const { return connections_.size(); }

 private:
  struct Listener {
    Listener(asio::io_context& loop, UniqueFd given) : socket(std::move(given)), waits(loop, socket.get()) {}
    ~Listener() { waits.release(); }
    UniqueFd socket;
    asio::posix::stream_descriptor waits;
    Nanoseconds accepted_at = 0;  // the last time
    bool paused = false;          // no descriptor is left: tried again with the next sweep
  };

  void wait_to_accept(Listener* listener);
  void accept(Listener* listener);
  void take(UniqueFd socket);
  void sweep_later();
  void sweep();

  asio::steady_timer sweep_;
  ConnectionHost host_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unordered_map<HttpConnection*, std::shared_ptr<HttpConnection>> connections_;
  bool ended_ = false;
};

Result<void> HttpServer::Implementation::listen_on(UniqueFd listener) {
  listeners_.push_back(std::make_unique<Listener>(host_.loop, std::move(listener)));
  wait_to_accept(listeners_.back().get());
  return {};
}

void HttpServer::Implementation::wait_to_accept(Listener* listener) {
  listener->waits.async_wait(listener->waits.wait_read,
                             [self = shared_from_this(), listener](const boost::system::error_code& error) {
                               if (!error) self->accept(listener);
                             });
}

// For at most half as long as everything else took since the last time, so that a flood of connections takes a third of
// the loop's time from the streams, and thousands of busy streams leave room for more.
void HttpServer::Implementation::accept(Listener* listener) {
  constexpr Nanoseconds millisecond = 1'000'000;
  const Nanoseconds begun = monotonic_now();
  const Nanoseconds until = begun + std::clamp((begun - listener->accepted_at) / 2, millisecond, 50 * millisecond);
  while ((listener->accepted_at = monotonic_now()) < until) {
    auto socket = tcp::accept(listener->socket.get());
    if (!socket.ok()) {
      log(LogLevel::warning, "cannot accept a connection, tried again in {} ms: {}",
          host_.limits.sweep_interval / 1'000'000, socket.error().message);
      listener->paused = true;
      return;
    }
    if (!socket->valid()) break;
    take(std::move(*socket));
  }
  wait_to_accept(listener);
}

void HttpServer::Implementation::take(UniqueFd socket) {
  tcp::let_peer_be_busy(socket.get());  // how long a reader may stall is limits.h's
  TlsSession tls = host_.tls != nullptr ? begin_tls(host_.tls.get(), socket.get()) : nullptr;
  if (host_.tls != nullptr && tls == nullptr) return;
  HttpTransport transport(std::move(socket), std::move(tls));
  if (connections_.size() >= host_.limits.connections_max) {
    HttpResponse full = error_response(503, "too many connections: try again later");
    full.fields.emplace_back("retry-after", "1");
    transport.write(response_head(full, BodyEnd::by_length, false, host_.date) + full.body);
    return;
  }
  const auto connection = std::make_shared<HttpConnection>(host_, std::move(transport));
  connections_.emplace(connection.get(), connection);
  connection->start();
}

void HttpServer::Implementation::sweep_later() {
  sweep_.expires_after(std::chrono::nanoseconds(host_.limits.sweep_interval));
  sweep_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error && !self->ended_) self->sweep();
  });
}

void HttpServer::Implementation::sweep() {
  host_.date = http_date(std::time(nullptr));
  const Nanoseconds now = monotonic_now();
  std::vector<std::shared_ptr<HttpConnection>> all;
  all.reserve(connections_.size());
  for (const auto& [key, connection] : connections_) all.push_back(connection);
  for (const auto& connection : all) connection->look_at_deadlines(now);
  for (const auto& listener : listeners_) {
    if (!std::exchange(listener->paused, false)) continue;
    wait_to_accept(listener.get());
  }
  sweep_later();
}

void HttpServer::Implementation::drain() {
  host_.draining = true;
  // Who has connected by now gets an answer, if only that it is too late: one that is cut off cannot know whether to
  // ask elsewhere.
  for (const auto& listener : listeners_) {
    const int fd = listener->socket.get();
    for (auto socket = tcp::accept(fd); socket.ok() && socket->valid(); socket = tcp::accept(fd)) {
      take(std::move(*socket));
    }
  }
  listeners_.clear();
  std::vector<std::shared_ptr<HttpConnection>> all;
  for (const auto& [key, connection] : connections_) all.push_back(connection);
  for (const auto& connection : all) connection->drain();
}

void HttpServer::Implementation::shut_down() {
  ended_ = true;
  sweep_.cancel();
  listeners_.clear();
  while (!connections_.empty()) connections_.begin()->second->close();
}

HttpServer::HttpServer(asio::io_context& loop, HttpApplication application, const HttpLimits& limits, TlsContext tls)
    : implementation_(std::make_shared<Implementation>(loop, std::move(application), limits, std::move(tls))) {
  implementation_->start();
}

HttpServer::~HttpServer() {
  implementation_->shut_down();
}

Result<void> HttpServer::listen_on(UniqueFd listener) {
  return implementation_->listen_on(std::move(listener));
}

void HttpServer::drain() {
  implementation_->drain();
}

std::size_t HttpServer::connections() const {
  return implementation_->connections();
}

}  // namespace chorus
