#include "net/connector.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds again_after = 50 * millisecond;

int milliseconds_until(Nanoseconds deadline) {
  const Nanoseconds left = deadline - monotonic_now();
  return left <= 0 ? 0 : static_cast<int>(std::min((left + millisecond - 1) / millisecond, Nanoseconds{60'000}));
}

}  // namespace

Connector::Connector(std::vector<tcp::Address> addresses, std::shared_ptr<const ClusterKey> key, Nanoseconds deadline,
                     const ConnectionLimits& limits)
    : addresses_(std::move(addresses)), key_(std::move(key)), deadline_(deadline), limits_(limits) {
  CHECK(!addresses_.empty(), "no address to connect to");
}

pollfd Connector::wanted() const {
  return handshake_ ? handshake_->wanted() : pollfd{connecting_.get(), POLLOUT, 0};
}

// Starts with the next address that can be started with.
Result<void> Connector::begin_next() {
  Result<void> begun = fail(ErrorCode::unavailable, "{}: no answer", addresses_.back().text());
  while (next_ < addresses_.size()) {
    auto socket = tcp::begin_connect(addresses_[next_++]);
    if (socket.ok()) {
      connecting_ = std::move(*socket);
      return {};
    }
    begun = socket.error();
  }
  return begun;
}

Result<std::unique_ptr<Connection>> Connector::advance(Nanoseconds now) {
  if (!handshake_) {
    if (!connecting_.valid()) CHORUS_TRY_VOID(begin_next());
    pollfd item = wanted();
    const bool answered = ::poll(&item, 1, 0) > 0;
    if (!answered && now >= deadline_) {
      return fail(ErrorCode::deadline_exceeded, "{}: no answer", addresses_[next_ - 1].text());
    }
    if (!answered) return std::unique_ptr<Connection>();
    if (const auto connected = tcp::finish_connect(connecting_.get()); !connected.ok()) {
      connecting_.reset();
      const Error error = with_context(connected.error(), addresses_[next_ - 1].text());
      if (next_ == addresses_.size()) return error;
      return std::unique_ptr<Connection>();  // the next call tries the next one
    }
    handshake_.emplace(std::move(connecting_),
                       Handshake(Handshake::Role::connector, key_.get(), random_bytes(nonce_bytes)),
                       addresses_[next_ - 1].text(), deadline_);
  }
  CHORUS_TRY(const bool done, handshake_->advance());
  if (done) return handshake_->connection(limits_);
  if (now >= deadline_)
    return fail(ErrorCode::deadline_exceeded, "{} did not finish the handshake", handshake_->peer());
  return std::unique_ptr<Connection>();
}

namespace {

// Until this attempt has come to its end.
Result<std::unique_ptr<Connection>> finish(Connector connector) {
  while (true) {
    CHORUS_TRY(auto connection, connector.advance(monotonic_now()));
    if (connection) return connection;
    pollfd item = connector.wanted();
    if (item.fd >= 0) (void)::poll(&item, 1, milliseconds_until(connector.deadline()));
  }
}

}  // namespace

Result<std::unique_ptr<Connection>> connect_to(const std::string& host, int port,
                                               const std::shared_ptr<const ClusterKey>& key, Nanoseconds deadline,
                                               const ConnectionLimits& limits) {
  while (true) {
    Result<std::unique_ptr<Connection>> made = std::unique_ptr<Connection>();
    if (auto addresses = tcp::resolve(host, port, deadline); addresses.ok()) {
      made = finish(Connector(std::move(*addresses), key, deadline, limits));
    } else {
      made = addresses.error();
    }
    if (made.ok()) return made;
    const ErrorCode code = made.error().code;
    if (code != ErrorCode::unavailable && code != ErrorCode::deadline_exceeded) return made;
    if (monotonic_now() + again_after >= deadline) {
      return fail(ErrorCode::deadline_exceeded, "no connection to {} port {} in time: {}", host, port,
                  made.error().message);
    }
    std::this_thread::sleep_for(std::chrono::nanoseconds(again_after));
  }
}

}  // namespace chorus
