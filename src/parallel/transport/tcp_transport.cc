// Transport over links: pieces in any order that makes progress, and news.
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>

#include "base/check.h"
#include "parallel/store/store_check.h"
#include "parallel/transport/tcp_transport_links.h"

namespace chorus {
namespace {

// On the news connection, two pieces: a u32 length and the reason for which the sender's world is broken. Length 0 is a
// farewell.
constexpr std::size_t reason_bytes_max = 4096;
constexpr int reason_wait_ms = 200;

class TcpTransport final : public Transport {
 public:
  TcpTransport(int rank, int timeout_ms, std::vector<TcpLink> links)
      : Transport(rank, static_cast<int>(links.size()), timeout_ms), peers_(links.size()) {
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      peers_[i].link = std::move(links[i]);
      peers_[i].link.news.begin_receiving(std::as_writable_bytes(std::span(&peers_[i].reason_bytes, 1)));
    }
  }

  ~TcpTransport() override {
    if (!broken_) tell_all("");
  }

  Result<void> begin(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) override {
    if (broken_) return *broken_;
    for (Peer& peer : peers_) peer.clear();
    // A call that never has to wait would not see that the world is broken.
    CHORUS_TRY_VOID(look());
    take(outgoing, incoming);
    return {};
  }

  Result<Moved> move() override {
    const bool complete = move_bytes();
    if (broken_) return *broken_;
    return complete ? Moved::all : Moved::nothing;
  }

  Result<bool> has_byte(int rank) override {
    if (broken_) return *broken_;
    Peer& peer = peer_at(rank);
    const auto there = peer.link.data.has_byte();
    if (!there.ok()) lost(&peer, there.error());
    if (broken_) return *broken_;
    return there;
  }

  Result<void> rest(int peer, Nanoseconds until) override { return wait_for_events(peer, until); }
  Result<void> look() override { return wait_for_events(-1, 0); }

  void abort(const std::string& reason) override {
    if (!broken_) (void)break_world(Error{ErrorCode::unavailable, reason});
  }

  std::string missing() const override {
    std::vector<int> ranks;
    for (const Peer& peer : peers_) {
      if (peer.sends() || peer.receives()) ranks.push_back(rank_of(peer));
    }
    return name_ranks(ranks);
  }

  Error break_world(Error error) override {
    if (broken_) return *broken_;
    // To the others it is not their deadline that passed.
    broken_ = Error{ErrorCode::unavailable, error.message};
    tell_all(error.message.empty() ? "the world was ended without a reason" : error.message);
    return error;
  }

 private:
  struct Peer {
    TcpLink link;
    std::uint32_t reason_bytes = 0;
    std::string reason;  // sized once its length is known
    bool said_farewell = false;
    bool news_ended = false;
    // Of the exchange in progress, in order.
    std::vector<std::span<const std::byte>> out;
    std::vector<std::span<std::byte>> in;
    std::size_t out_done = 0, in_done = 0;  // pieces

    void clear() {
      out.clear();
      in.clear();
      out_done = in_done = 0;
    }
    bool sends() const { return out_done < out.size(); }
    bool receives() const { return in_done < in.size(); }
  };

  Peer& peer_at(int rank) { return peers_[static_cast<std::size_t>(rank)]; }
  int rank_of(const Peer& peer) const { return static_cast<int>(&peer - peers_.data()); }

  void take(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) {
    for (const Outgoing& piece : outgoing) {
      CHECK(piece.peer >= 0 && piece.peer < size() && piece.peer != rank(), "rank {} sends to rank {} of {}", rank(),
            piece.peer, size());
      if (!piece.bytes.empty()) peer_at(piece.peer).out.push_back(piece.bytes);
    }
    for (const Incoming& piece : incoming) {
      CHECK(piece.peer >= 0 && piece.peer < size() && piece.peer != rank(), "rank {} receives from rank {} of {}",
            rank(), piece.peer, size());
      if (!piece.bytes.empty()) peer_at(piece.peer).in.push_back(piece.bytes);
    }
    for (Peer& peer : peers_) {
      if (peer.sends()) peer.link.data.begin_sending(peer.out.front());
      if (peer.receives()) peer.link.data.begin_receiving(peer.in.front());
    }
  }

  // As far as the sockets go without waiting. True: the exchange is done.
  bool move_bytes() {
    bool complete = true;
    for (Peer& peer : peers_) {
      while (!broken_ && peer.sends() && send_some(&peer)) continue;
      while (!broken_ && peer.receives() && receive_some(&peer)) continue;
      complete = complete && !peer.sends() && !peer.receives();
    }
    return complete;
  }

  // False: the socket takes no more now, or the world is broken.
  bool send_some(Peer* peer) {
    TcpChannel& data = peer->link.data;
    const auto moved = data.send_some();
    if (!moved.ok()) return lost(peer, moved.error());
    if (!data.sending() && ++peer->out_done < peer->out.size()) data.begin_sending(peer->out[peer->out_done]);
    return *moved;
  }

  bool receive_some(Peer* peer) {
    TcpChannel& data = peer->link.data;
    const auto moved = data.receive_some();
    if (!moved.ok()) return lost(peer, moved.error());
    if (!data.receiving() && ++peer->in_done < peer->in.size()) data.begin_receiving(peer->in[peer->in_done]);
    return *moved;
  }

  // False, for its callers. The peer's own reason, if it left one, tells more than the end of its connection; it comes
  // over the other one, so perhaps a moment later.
  bool lost(Peer* peer, const Error& how) {
    if (how.code == ErrorCode::invalid_argument) return tampered(peer, how);
    pollfd item{peer->link.news.fd(), POLLIN, 0};
    if (!peer->news_ended) (void)::poll(&item, 1, reason_wait_ms);
    read_news(peer);
    if (broken_) return false;
    (void)break_world(fail(ErrorCode::unavailable, "rank {} is gone: {}", rank_of(*peer),
                           peer->said_farewell ? "it left the world" : how.message));
    return false;
  }

  bool tampered(Peer* peer, const Error& how) {
    (void)break_world(
        fail(ErrorCode::unavailable, "rank {}, what came from rank {}: {}", rank(), rank_of(*peer), how.message));
    return false;
  }

  // Waits for whatever the exchange in progress needs, for a byte of `peer` (if >= 0), and for news.
  Result<void> wait_for_events(int peer, Nanoseconds deadline) {
    items_.clear();
    for (Peer& other : peers_) {
      if (rank_of(other) == rank()) continue;
      const bool receives = other.receives() || rank_of(other) == peer;
      const int events = (receives ? POLLIN : 0) | (other.sends() ? POLLOUT : 0);
      items_.push_back({events != 0 ? other.link.data.fd() : -1, static_cast<short>(events), 0});
      items_.push_back({other.news_ended ? -1 : other.link.news.fd(), POLLIN, 0});
    }
    const int count = ::poll(items_.data(), items_.size(), milliseconds_until(deadline));
    if (count < 0 && errno != EINTR) {
      return break_world(fail(ErrorCode::internal, "rank {}: poll: {}", rank(), std::strerror(errno)));
    }
    std::size_t item = 1;
    for (Peer& other : peers_) {
      if (rank_of(other) == rank()) continue;
      if (count > 0 && items_[item].revents != 0) read_news(&other);
      item += 2;
    }
    if (broken_) return *broken_;
    return {};
  }

  void read_news(Peer* peer) {
    TcpChannel& news = peer->link.news;
    while (!peer->news_ended && !broken_) {
      const auto moved = news.receive_some();
      if (!moved.ok()) {
        peer->news_ended = true;
        if (moved.error().code == ErrorCode::invalid_argument) return (void)tampered(peer, moved.error());
        (void)break_world(
            fail(ErrorCode::unavailable, "rank {} died: its connection ended without a farewell", rank_of(*peer)));
        return;
      }
      if (!*moved) return;
      if (!news.receiving()) take_news(peer);
    }
  }

  // A piece of news is whole.
  void take_news(Peer* peer) {
    peer->said_farewell = peer->reason_bytes == 0;
    peer->news_ended = peer->said_farewell || !peer->reason.empty();
    if (!peer->reason.empty()) (void)break_world(Error{ErrorCode::unavailable, peer->reason});
    if (peer->news_ended) return;
    peer->reason.resize(std::min<std::size_t>(peer->reason_bytes, reason_bytes_max));
    peer->link.news.begin_receiving(std::as_writable_bytes(std::span(peer->reason)));
  }

  // It is smaller than any socket's buffer and the only news of its sender, so it goes whole or not at all.
  void tell_all(std::string_view reason) {
    reason = reason.substr(0, reason_bytes_max);
    const auto length = static_cast<std::uint32_t>(reason.size());
    for (Peer& peer : peers_) {
      TcpChannel& news = peer.link.news;
      if (!news.valid()) continue;
      news.begin_sending(std::as_bytes(std::span(&length, 1)));
      (void)news.send_some();
      if (news.sending() || reason.empty()) continue;
      news.begin_sending(std::as_bytes(std::span(reason)));
      (void)news.send_some();
    }
  }

  std::vector<Peer> peers_;
  std::vector<pollfd> items_;
  std::optional<Error> broken_;
};

}  // namespace

std::unique_ptr<Transport> make_tcp_transport(int rank, int timeout_ms, std::vector<TcpLink> links) {
  return std::make_unique<TcpTransport>(rank, timeout_ms, std::move(links));
}

}  // namespace chorus
