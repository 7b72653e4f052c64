#include "net/frame_listener.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace chorus {
namespace {

constexpr int backlog = 128;
constexpr int accepts_a_turn_max = 64;
constexpr Nanoseconds second = 1'000'000'000;

}  // namespace

Result<FrameListener> FrameListener::listen(const ListenOptions& options) {
  CHORUS_TRY(const auto addresses, tcp::resolve(options.address, options.port));
  const tcp::Address& wanted = addresses.front();
  CHORUS_TRY_VOID(tcp::check_guarded(wanted, options.key.get()));
  FrameListener listener;
  listener.options_ = options;
  CHORUS_TRY(listener.socket_, tcp::listen(wanted, backlog));
  CHORUS_TRY(listener.address_, tcp::local_address(listener.socket_.get()));
  return listener;
}

void FrameListener::append_descriptors(std::vector<pollfd>* items) const {
  // Negative: skipped by poll(2). Without a free descriptor the waiting connection would make it spin.
  items->push_back({paused_until_ > 0 ? -1 : socket_.get(), POLLIN, 0});
  for (const HandshakeSocket& pending : pending_) items->push_back(pending.wanted());
}

std::optional<Nanoseconds> FrameListener::next_deadline() const {
  std::optional<Nanoseconds> next;
  if (paused_until_ > 0) next = paused_until_;
  for (const HandshakeSocket& pending : pending_)
    next = std::min(next.value_or(pending.deadline()), pending.deadline());
  return next;
}

std::vector<FrameListener::Accepted> FrameListener::accept(Nanoseconds now) {
  take_new(now);
  std::vector<Accepted> accepted;
  std::erase_if(pending_, [&](HandshakeSocket& pending) {
    const auto done = pending.advance();
    if (!done.ok()) {
      refuse(done.error().message, now);
      return true;
    }
    if (!*done) {
      if (now >= pending.deadline())
        refuse(fmt::format("{} did not finish the handshake in time", pending.peer()), now);
      return now >= pending.deadline();
    }
    auto connection = pending.connection(options_.limits);
    if (connection.ok()) accepted.push_back({std::move(*connection), pending.peer()});
    return true;
  });
  return accepted;
}

void FrameListener::take_new(Nanoseconds now) {
  if (now < paused_until_) return;
  paused_until_ = 0;
  for (int i = 0; i < accepts_a_turn_max; ++i) {
    auto socket = tcp::accept(socket_.get());
    if (!socket.ok()) {
      refuse(socket.error().message, now);
      paused_until_ = now + second;
      return;
    }
    if (!socket->valid()) return;
    const auto peer = tcp::peer_address(socket->get());
    if (!peer.ok()) continue;  // it has left again
    if (pending_.size() >= options_.pending_max) {
      refuse(fmt::format("{}: more than {} connections are in their handshake", pending_.front().peer(),
                         options_.pending_max),
             now);
      pending_.pop_front();
    }
    Handshake handshake(Handshake::Role::listener, options_.key.get(), random_bytes(nonce_bytes));
    pending_.emplace_back(std::move(*socket), std::move(handshake), peer->text(),
                          now + Nanoseconds{options_.handshake_timeout_ms} * 1'000'000);
  }
}

void FrameListener::refuse(const std::string& why, Nanoseconds now) {
  last_refusal_ = why;
  if (now < log_again_at_) {
    ++refusals_unlogged_;
    return;
  }
  log_again_at_ = now + second;
  const std::uint64_t more = std::exchange(refusals_unlogged_, 0);
  log(LogLevel::warning, "Refused a connection: {}{}", why, more > 0 ? fmt::format(" (and {} more)", more) : "");
}

}  // namespace chorus
