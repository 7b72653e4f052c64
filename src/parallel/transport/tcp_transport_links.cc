#include "parallel/transport/tcp_transport_links.h"

#include <fmt/ranges.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <utility>

#include "net/tcp.h"
#include "parallel/store/store_check.h"
#include "parallel/transport/tcp_socket.h"

namespace chorus {
namespace {

constexpr std::uint32_t hello_mark = 0x4843544C;
// A door listens before anybody knows of it: what cannot be reached for so long is gone.
constexpr int unreachable_ms_max = 10'000;
// Connections that are not through yet. When there are so many, others wait, and those that took too long go.
constexpr std::size_t strangers_max = 64;
constexpr Nanoseconds stranger_ns_max = 2'000'000'000;
constexpr int full_look_again_ms = 100;
enum Channel : std::uint32_t { data_channel, news_channel };

// What a caller says first; one byte is the answer. Under the tag of the connection where there is a key, so that
// nobody on the way can lead a rank to another one, or make one connection the other.
struct Hello {
  std::uint32_t mark = hello_mark;
  std::uint32_t channel = data_channel;
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::uint32_t size = 0;
  std::array<char, tcp_token_bytes> token{};
};
static_assert(sizeof(Hello) == 36);

struct Stranger {
  HandshakeSocket handshake;
  Nanoseconds since = 0;
  TcpChannel channel = {};  // once the handshake is over
  Hello hello = {};

  pollfd wanted() const { return channel.valid() ? pollfd{channel.fd(), POLLIN, 0} : handshake.wanted(); }
  // As far as it goes without waiting. True: the hello is whole.
  Result<bool> go_on() {
    if (!channel.valid()) {
      CHORUS_TRY(const bool proven, handshake.advance());
      if (!proven) return false;
      channel = TcpChannel(handshake.take());
      channel.begin_receiving(std::as_writable_bytes(std::span(&hello, 1)));
    }
    while (channel.receiving()) {
      CHORUS_TRY(const bool moved, channel.receive_some());
      if (!moved) return false;
    }
    return true;
  }
};

class LinkMaker {
 public:
  explicit LinkMaker(const TcpMeeting& meeting)
      : meeting_(meeting), links_(meeting.contacts.size()), spoken_(meeting.contacts.size(), false) {}

  // A rank calls all lower ones, in their order, and is then called by all higher ones. Rank 0 calls nobody, and a rank
  // that has called all lower ones answers; so there is always one that goes on.
  Result<std::vector<TcpLink>> make() {
    for (int peer = 0; peer < meeting_.rank; ++peer) {
      CHORUS_TRY(TcpChannel data, call(peer, data_channel));
      CHORUS_TRY(TcpChannel news, call(peer, news_channel));
      keep(peer, data_channel, std::move(data));
      keep(peer, news_channel, std::move(news));
    }
    CHORUS_TRY_VOID(accept_callers());
    return std::move(links_);
  }

 private:
  int rank() const { return meeting_.rank; }
  int size() const { return static_cast<int>(links_.size()); }
  TcpLink& link(int peer) { return links_[static_cast<std::size_t>(peer)]; }

  Result<TcpChannel> call(int peer, Channel channel) {
    const TcpContact& contact = meeting_.contacts[static_cast<std::size_t>(peer)];
    auto socket =
        connect_tcp(contact.address, contact.port, std::min(meeting_.deadline, deadline_after(unreachable_ms_max)));
    if (!socket.ok()) {
      return with_context(socket.error(),
                          fmt::format("rank {} cannot reach rank {} (the address a rank gives to others "
                                      "is that by which it reaches MASTER_ADDR)",
                                      rank(), peer));
    }
    HandshakeSocket handshake(std::move(*socket),
                              Handshake(Handshake::Role::connector, meeting_.key, random_bytes(nonce_bytes)),
                              fmt::format("rank {}", peer), meeting_.deadline);
    while (true) {
      CHORUS_TRY(const bool proven, handshake.advance());
      if (proven) break;
      CHORUS_TRY_VOID(wait(handshake.wanted(), peer));
    }
    TcpChannel called(handshake.take());
    Hello hello{.channel = channel, .from = rank(), .to = peer, .size = static_cast<std::uint32_t>(size())};
    std::memcpy(hello.token.data(), contact.token.data(), tcp_token_bytes);
    std::byte answer{};
    called.begin_sending(std::as_bytes(std::span(&hello, 1)));
    called.begin_receiving({&answer, 1});
    while (called.sending() || called.receiving()) {
      const bool sends = called.sending();
      auto moved = sends ? called.send_some() : called.receive_some();
      if (!moved.ok()) return with_context(moved.error(), fmt::format("rank {} does not take the call", peer));
      const short event = sends ? POLLOUT : POLLIN;
      if (!*moved) CHORUS_TRY_VOID(wait({called.fd(), event, 0}, peer));
    }
    return called;
  }

  // A rank may compute for minutes before it takes what was sent to it. Its node's end shows on the other connection,
  // which is never full.
  void keep(int peer, Channel channel, TcpChannel made) {
    if (channel == data_channel) tcp::let_peer_be_busy(made.fd());
    (channel == data_channel ? link(peer).data : link(peer).news) = std::move(made);
  }

  Result<void> wait(const pollfd& wanted, int peer) const {
    CHORUS_TRY(const bool ready, wait_for_socket(wanted.fd, wanted.events, meeting_.deadline));
    if (ready) return {};
    return fail(ErrorCode::deadline_exceeded, "rank {}: rank {} listens, but it did not join in time", rank(), peer);
  }

  Result<void> accept_callers() {
    while (!missing().empty()) {
      const int left_ms = milliseconds_until(meeting_.deadline);
      if (left_ms == 0) return deadline_error();
      const bool full = strangers_.size() >= strangers_max;
      items_.assign({{full ? -1 : meeting_.listener, POLLIN, 0}});
      for (const Stranger& stranger : strangers_) items_.push_back(stranger.wanted());
      watched_.clear();
      for (int peer = 0; peer < size(); ++peer) {
        if (!link(peer).data.valid() || spoken_[static_cast<std::size_t>(peer)]) continue;
        watched_.push_back(peer);
        items_.push_back({watched_end(peer).fd(), POLLIN, 0});
      }
      const int count = ::poll(items_.data(), items_.size(), full ? std::min(left_ms, full_look_again_ms) : left_ms);
      if (full) drop_the_slow();
      if (count > 0) CHORUS_TRY_VOID(go_on());
    }
    return {};
  }

  Result<void> go_on() {
    std::erase_if(strangers_, [this](Stranger& stranger) {
      const auto through = stranger.go_on();
      if (!through.ok()) refused_ = through.error().message;
      if (through.ok() && *through) admit(&stranger);
      return !through.ok() || *through;
    });
    for (std::size_t i = 0; i < watched_.size(); ++i) {
      if (items_[items_.size() - watched_.size() + i].revents != 0) CHORUS_TRY_VOID(look_after(watched_[i]));
    }
    if (items_[0].revents == 0) return {};
    CHORUS_TRY(UniqueFd socket, tcp::accept(meeting_.listener));
    if (!socket.valid()) return {};
    const auto address = tcp::peer_address(socket.get());
    if (!address.ok()) return {};  // it has left again
    Handshake handshake(Handshake::Role::listener, meeting_.key, random_bytes(nonce_bytes));
    strangers_.push_back({HandshakeSocket(std::move(socket), std::move(handshake), address->text(), meeting_.deadline),
                          monotonic_now()});
    return {};
  }

  void drop_the_slow() {
    const Nanoseconds now = monotonic_now();
    std::erase_if(strangers_, [&](const Stranger& stranger) {
      const bool slow = now - stranger.since > stranger_ns_max;
      if (slow) refused_ = stranger.handshake.peer() + " was silent";
      return slow;
    });
  }

  TcpChannel& watched_end(int peer) { return link(peer).news.valid() ? link(peer).news : link(peer).data; }

  // A rank that fails closes what it has, so that the others need not wait for it. One that says something first has
  // joined and may have left the world already, which its transport will tell.
  Result<void> look_after(int peer) {
    const auto said = watched_end(peer).has_byte();
    if (!said.ok()) {
      return fail(ErrorCode::unavailable, "rank {} left while the ranks were joining: {}", peer, said.error().message);
    }
    spoken_[static_cast<std::size_t>(peer)] = *said;
    return {};
  }

  void admit(Stranger* stranger) {
    const Hello& hello = stranger->hello;
    const std::string& token = meeting_.contacts[static_cast<std::size_t>(rank())].token;
    const bool knows_us = hello.mark == hello_mark && hello.to == rank() &&
                          hello.size == static_cast<std::uint32_t>(size()) &&
                          equal_in_constant_time({hello.token.data(), hello.token.size()}, token);
    if (!knows_us || hello.from <= rank() || hello.from >= size() || !take(hello, &stranger->channel)) {
      refused_ = stranger->handshake.peer() + " seeks another rank or world, or calls again";
    }
  }

  // A rank calls for news once its call for data was answered.
  bool take(const Hello& hello, TcpChannel* channel) {
    TcpLink& link = this->link(hello.from);
    const bool for_data = hello.channel == data_channel && !link.data.valid();
    const bool for_news = hello.channel == news_channel && link.data.valid() && !link.news.valid();
    if (!for_data && !for_news) return false;
    const std::byte answer{1};
    channel->begin_sending({&answer, 1});
    if (!channel->send_some().ok() || channel->sending()) return false;
    keep(hello.from, for_data ? data_channel : news_channel, std::move(*channel));
    return true;
  }

  std::vector<int> missing() {
    std::vector<int> ranks;
    for (int peer = rank() + 1; peer < size(); ++peer) {
      if (!link(peer).data.valid() || !link(peer).news.valid()) ranks.push_back(peer);
    }
    return ranks;
  }

  Error deadline_error() {
    return fail(ErrorCode::deadline_exceeded, "rank {}: no connection from ranks {} in time{}{}", rank(),
                fmt::join(missing(), ", "), refused_.empty() ? "" : "; one was refused: ", refused_);
  }

  const TcpMeeting& meeting_;
  std::vector<TcpLink> links_;
  std::list<Stranger> strangers_;  // a list: a hello lies in its stranger while it is received
  std::string refused_;            // why, last
  std::vector<bool> spoken_;       // by rank: it has said something already
  std::vector<pollfd> items_;      // the listener, the strangers, the watched
  std::vector<int> watched_;
};

}  // namespace

Result<std::vector<TcpLink>> connect_tcp_links(const TcpMeeting& meeting) {
  return LinkMaker(meeting).make();
}

}  // namespace chorus
