#include "dist/tcp_transport_links.h"

#include <fmt/ranges.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "config/engine_config.h"
#include "dist/store_check.h"
#include "dist/tcp_socket.h"
#include "net/tcp.h"
#include "net/wire.h"

namespace chorus {
namespace {

constexpr std::uint32_t hello_mark = 0x4843544C;
constexpr std::size_t token_bytes = 16;
constexpr std::size_t strangers_max = 64;  // connections whose hello has not come
enum Channel : std::uint8_t { data_channel, news_channel };

using Token = std::array<char, token_bytes>;

struct Hello {
  std::uint32_t mark = hello_mark;
  std::uint32_t channel = data_channel;
  std::int32_t rank = 0;
  Token token{};
};
static_assert(sizeof(Hello) == 28);

// What a rank publishes.
struct Contact {
  std::string address;
  int port = 0;
  Token token{};
};

std::string encode(const Contact& contact) {
  WireWriter writer;
  writer.text(contact.address);
  writer.u32(static_cast<std::uint32_t>(contact.port));
  writer.text({contact.token.data(), token_bytes});
  return writer.take();
}

Result<Contact> decode_contact(const std::string& bytes) {
  WireReader reader(bytes);
  Contact contact;
  contact.address = reader.text();
  contact.port = static_cast<int>(reader.u32());
  const std::string token = reader.text();
  if (token.size() != token_bytes) reader.refuse("the token has not 16 bytes");
  CHORUS_TRY_VOID(reader.finish());
  std::memcpy(contact.token.data(), token.data(), token_bytes);
  return contact;
}

std::string contact_key(int rank) {
  return fmt::format("tcp/{}", rank);
}

class LinkMaker {
 public:
  LinkMaker(Store& store, int rank, int size, const TcpTransportOptions& options)
      : store_(store),
        rank_(rank),
        size_(size),
        options_(options),
        deadline_(deadline_after(options.join_timeout_ms)),
        links_(static_cast<std::size_t>(size)) {}

  // A rank connects to all lower ones and is called by all higher ones. Listening comes before publishing, so a
  // connection never has to wait for the other side's accept().
  Result<std::vector<TcpLink>> make() {
    CHORUS_TRY_VOID(publish());
    CHORUS_TRY(const std::vector<Contact> contacts, read_contacts());
    for (int peer = 0; peer < rank_; ++peer) {
      const Contact& contact = contacts[static_cast<std::size_t>(peer)];
      CHORUS_TRY(links_[static_cast<std::size_t>(peer)].data, call(peer, contact, data_channel));
      CHORUS_TRY(links_[static_cast<std::size_t>(peer)].news, call(peer, contact, news_channel));
    }
    CHORUS_TRY_VOID(accept_callers());
    return std::move(links_);
  }

 private:
  Result<void> publish() {
    CHORUS_TRY(listener_, listen_tcp(options_.address, 0, SOMAXCONN));
    Contact contact;
    CHORUS_TRY(const tcp::Address listening, tcp::local_address(listener_.get()));
    contact.address = listening.host();
    contact.port = listening.port();
    if (::getrandom(contact.token.data(), token_bytes, 0) != token_bytes) {
      return fail(ErrorCode::internal, "getrandom: {}", std::strerror(errno));
    }
    token_ = contact.token;
    return store_.set(contact_key(rank_), encode(contact), milliseconds_until(deadline_));
  }

  Result<std::vector<Contact>> read_contacts() {
    std::vector<std::string> keys;
    for (int peer = 0; peer < size_; ++peer) keys.push_back(contact_key(peer));
    CHORUS_TRY_VOID(store_.wait(keys, milliseconds_until(deadline_)));
    std::vector<Contact> contacts;
    for (const std::string& key : keys) {
      CHORUS_TRY(const std::string bytes, store_.get(key, milliseconds_until(deadline_)));
      auto contact = decode_contact(bytes);
      if (!contact.ok()) return with_context(contact.error(), "store key " + key);
      contacts.push_back(std::move(*contact));
    }
    CHORUS_TRY_VOID(check_addresses(contacts));
    return contacts;
  }

  // All ranks see the same, so nobody waits for a connection that cannot come.
  static Result<void> check_addresses(const std::vector<Contact>& contacts) {
    const auto local = [](const Contact& contact) { return is_loopback(contact.address); };
    const auto first = std::ranges::find_if(contacts, local);
    if (first == contacts.end() || std::ranges::all_of(contacts, local)) return {};
    return fail(ErrorCode::invalid_argument,
                "rank {} can be reached at {} only, which is of no use to ranks on other nodes: MASTER_ADDR must be an "
                "address that every node has for rank 0's node, not a loopback one",
                first - contacts.begin(), first->address);
  }

  Result<UniqueFd> call(int peer, const Contact& contact, Channel channel) {
    auto socket = connect_tcp(contact.address, contact.port, deadline_);
    if (!socket.ok()) {
      return with_context(socket.error(),
                          fmt::format("rank {} cannot reach rank {} (the address a rank gives to others "
                                      "is that by which it reaches MASTER_ADDR)",
                                      rank_, peer));
    }
    Hello hello;
    hello.channel = channel;
    hello.rank = rank_;
    hello.token = contact.token;
    CHORUS_TRY_VOID(send_all(socket->get(), {reinterpret_cast<const char*>(&hello), sizeof hello}, deadline_,
                             fmt::format("rank {}", peer)));
    return socket;
  }

  struct Stranger {
    UniqueFd socket;
    Hello hello;
    std::size_t received = 0;
    bool done = false;
  };

  Result<void> accept_callers() {
    std::vector<Stranger> strangers;
    std::vector<pollfd> items;
    while (!missing().empty()) {
      items.assign({{listener_.get(), static_cast<short>(strangers.size() < strangers_max ? POLLIN : 0), 0}});
      for (const Stranger& stranger : strangers) items.push_back({stranger.socket.get(), POLLIN, 0});
      const int left_ms = milliseconds_until(deadline_);
      if (left_ms == 0) {
        return fail(ErrorCode::deadline_exceeded, "rank {}: no connection from ranks {} within {} ms", rank_,
                    fmt::join(missing(), ", "), options_.join_timeout_ms);
      }
      if (::poll(items.data(), items.size(), left_ms) <= 0) continue;
      for (std::size_t i = 0; i < strangers.size(); ++i) {
        if (items[i + 1].revents != 0) read_hello(&strangers[i]);
      }
      std::erase_if(strangers, [](const Stranger& stranger) { return stranger.done; });
      if (items[0].revents != 0) {
        CHORUS_TRY(UniqueFd socket, tcp::accept(listener_.get()));
        if (socket.valid()) strangers.emplace_back().socket = std::move(socket);
      }
    }
    return {};
  }

  void read_hello(Stranger* stranger) {
    char* to = reinterpret_cast<char*>(&stranger->hello) + stranger->received;
    const ssize_t count = ::recv(stranger->socket.get(), to, sizeof(Hello) - stranger->received, 0);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
    stranger->received += count > 0 ? static_cast<std::size_t>(count) : 0;
    stranger->done = count <= 0 || stranger->received == sizeof(Hello);
    const Hello& hello = stranger->hello;
    if (stranger->received < sizeof(Hello) || hello.mark != hello_mark || hello.token != token_) return;
    if (hello.rank <= rank_ || hello.rank >= size_ || hello.channel > news_channel) return;
    TcpLink& link = links_[static_cast<std::size_t>(hello.rank)];
    UniqueFd& end = hello.channel == data_channel ? link.data : link.news;
    if (!end.valid()) end = std::move(stranger->socket);
  }

  std::vector<int> missing() const {
    std::vector<int> ranks;
    for (int peer = rank_ + 1; peer < size_; ++peer) {
      const TcpLink& link = links_[static_cast<std::size_t>(peer)];
      if (!link.data.valid() || !link.news.valid()) ranks.push_back(peer);
    }
    return ranks;
  }

  Store& store_;
  int rank_, size_;
  TcpTransportOptions options_;
  Nanoseconds deadline_;
  UniqueFd listener_;
  Token token_{};
  std::vector<TcpLink> links_;
};

}  // namespace

Result<std::vector<TcpLink>> connect_tcp_links(Store& store, int rank, int size, const TcpTransportOptions& options) {
  return LinkMaker(store, rank, size, options).make();
}

}  // namespace chorus
