#include "dist/tcp_transport.h"

#include <fmt/ranges.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>

#include "base/check.h"
#include "dist/store_check.h"
#include "dist/tcp_transport_links.h"

namespace chorus {
namespace {

// On the news connection: a u32 length and the reason for which the sender's world is broken; length 0 is a farewell.
constexpr std::size_t reason_bytes_max = 4096;

class TcpTransport final : public Transport {
 public:
  TcpTransport(int rank, int size, int timeout_ms, std::vector<TcpLink> links)
      : Transport(rank, size), timeout_ms_(timeout_ms), peers_(static_cast<std::size_t>(size)) {
    for (std::size_t i = 0; i < peers_.size(); ++i) peers_[i].link = std::move(links[i]);
  }

  ~TcpTransport() override {
    if (!broken_) tell_all("");
  }

  Result<void> exchange(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) override {
    if (broken_) return *broken_;
    // A call that never has to wait would not see that the world is broken.
    for (Peer& peer : peers_) peer.clear();
    CHORUS_TRY_VOID(wait_for_events(-1, 0));
    begin(outgoing, incoming);
    const Nanoseconds deadline = deadline_after(timeout_ms_);
    while (true) {
      const bool complete = move_bytes();
      if (broken_) return *broken_;
      if (complete) return {};
      if (milliseconds_until(deadline) == 0) return break_world(deadline_error());
      CHORUS_TRY_VOID(wait_for_events(-1, deadline));
    }
  }

  Result<bool> wait_for(int peer, int timeout_ms) override {
    if (broken_) return *broken_;
    for (Peer& other : peers_) other.clear();
    const Nanoseconds deadline = deadline_after(timeout_ms);
    do {
      CHORUS_TRY(const bool there, has_byte(peer));
      if (there) return true;
      CHORUS_TRY_VOID(wait_for_events(peer, deadline));
    } while (milliseconds_until(deadline) > 0);
    return has_byte(peer);
  }

  void abort(const std::string& reason) override {
    if (!broken_) (void)break_world(Error{ErrorCode::unavailable, reason});
  }

 private:
  struct Peer {
    TcpLink link;
    std::string news;  // bytes of a message that is not whole yet
    bool said_farewell = false;
    bool news_ended = false;
    // Of the exchange in progress, in order; the first one is partly done.
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

  void begin(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) {
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

  // False: the socket takes no more now.
  bool send_some(Peer* peer) {
    auto& piece = peer->out[peer->out_done];
    const ssize_t count = ::send(peer->link.data.get(), piece.data(), piece.size(), MSG_NOSIGNAL);
    if (count < 0) return errno == EINTR || would_block_or_broken(peer, "sending to");
    piece = piece.subspan(static_cast<std::size_t>(count));
    if (piece.empty()) ++peer->out_done;
    return true;
  }

  bool receive_some(Peer* peer) {
    auto& piece = peer->in[peer->in_done];
    const ssize_t count = ::recv(peer->link.data.get(), piece.data(), piece.size(), 0);
    if (count < 0) return errno == EINTR || would_block_or_broken(peer, "receiving from");
    if (count == 0) {
      lost(peer, "it closed the connection");
      return false;
    }
    piece = piece.subspan(static_cast<std::size_t>(count));
    if (piece.empty()) ++peer->in_done;
    return true;
  }

  bool would_block_or_broken(Peer* peer, const char* what) {
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      lost(peer, fmt::format("{} it: {}", what, std::strerror(errno)).c_str());
    }
    return false;
  }

  // The peer's own reason, if it left one, tells more than the end of its connection.
  void lost(Peer* peer, const char* how) {
    read_news(peer);
    if (broken_) return;
    (void)break_world(fail(ErrorCode::unavailable, "rank {} is gone: {}", rank_of(*peer),
                           peer->said_farewell ? "it left the world" : how));
  }

  Result<bool> has_byte(int rank) {
    Peer& peer = peer_at(rank);
    char byte;
    const ssize_t count = ::recv(peer.link.data.get(), &byte, 1, MSG_PEEK);
    if (count > 0) return true;
    if (count == 0) lost(&peer, "it closed the connection");
    if (count < 0 && errno != EINTR) (void)would_block_or_broken(&peer, "receiving from");
    if (broken_) return *broken_;
    return false;
  }

  // Waits for whatever the exchange in progress needs, for a byte of `peer` (if >= 0), and for news.
  Result<void> wait_for_events(int peer, Nanoseconds deadline) {
    items_.clear();
    for (Peer& other : peers_) {
      if (rank_of(other) == rank()) continue;
      const bool receives = other.receives() || rank_of(other) == peer;
      const int events = (receives ? POLLIN : 0) | (other.sends() ? POLLOUT : 0);
      items_.push_back({events != 0 ? other.link.data.get() : -1, static_cast<short>(events), 0});
      items_.push_back({other.news_ended ? -1 : other.link.news.get(), POLLIN, 0});
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
    char bytes[512];
    while (!peer->news_ended) {
      const ssize_t count = ::recv(peer->link.news.get(), bytes, sizeof bytes, 0);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
      peer->news_ended = count <= 0;
      if (count > 0) peer->news.append(bytes, static_cast<std::size_t>(count));
      if (peer->news.size() > reason_bytes_max + sizeof(std::uint32_t)) break;
    }
    take_news(peer);
    if (peer->news_ended && !peer->said_farewell && !broken_) {
      (void)break_world(
          fail(ErrorCode::unavailable, "rank {} died: its connection ended without a farewell", rank_of(*peer)));
    }
  }

  void take_news(Peer* peer) {
    std::uint32_t length = 0;
    if (peer->said_farewell || peer->news.size() < sizeof length) return;
    std::memcpy(&length, peer->news.data(), sizeof length);
    if (length == 0) {
      peer->said_farewell = true;
      return;
    }
    const std::size_t bytes = std::min<std::size_t>(length, reason_bytes_max);
    if (peer->news.size() < sizeof length + bytes && !peer->news_ended) return;
    if (!broken_) (void)break_world(Error{ErrorCode::unavailable, peer->news.substr(sizeof length, bytes)});
  }

  Error break_world(Error error) {
    if (!broken_) {
      // To the others it is not their deadline that passed.
      broken_ = Error{ErrorCode::unavailable, error.message};
      tell_all(error.message.empty() ? "the world was ended without a reason" : error.message);
    }
    return error;
  }

  // A message is smaller than any socket's buffer and the only one of its sender, so it goes whole or not at all.
  void tell_all(std::string_view reason) {
    reason = reason.substr(0, reason_bytes_max);
    const auto length = static_cast<std::uint32_t>(reason.size());
    std::string message(reinterpret_cast<const char*>(&length), sizeof length);
    message.append(reason);
    for (Peer& peer : peers_) {
      if (peer.link.news.valid()) (void)::send(peer.link.news.get(), message.data(), message.size(), MSG_NOSIGNAL);
    }
  }

  Error deadline_error() const {
    std::set<int> missing;
    for (const Peer& peer : peers_) {
      if (peer.sends() || peer.receives()) missing.insert(rank_of(peer));
    }
    return fail(ErrorCode::deadline_exceeded, "rank {} waited {} ms for ranks {}", rank(), timeout_ms_,
                fmt::join(missing, ", "));
  }

  int timeout_ms_;
  std::vector<Peer> peers_;
  std::vector<pollfd> items_;
  std::optional<Error> broken_;
};

}  // namespace

Result<std::unique_ptr<Transport>> join_tcp_world(Store& store, int rank, int size,
                                                  const TcpTransportOptions& options) {
  CHECK(size >= 1 && size <= tcp_world_size_max && rank >= 0 && rank < size, "rank {} of {}", rank, size);
  CHORUS_TRY(std::vector<TcpLink> links, connect_tcp_links(store, rank, size, options));
  return std::unique_ptr<Transport>(
      std::make_unique<TcpTransport>(rank, size, options.exchange_timeout_ms, std::move(links)));
}

}  // namespace chorus
