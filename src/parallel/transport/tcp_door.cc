// From contacts to a Transport.
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "config/engine_config.h"
#include "net/tcp.h"
#include "net/wire.h"
#include "parallel/store/store_check.h"
#include "parallel/transport/tcp_contact.h"
#include "parallel/transport/tcp_transport.h"
#include "parallel/transport/tcp_transport_links.h"

namespace chorus {
namespace {

// All ranks see the same contacts, so they refuse together, and nobody waits for a connection that cannot come.
Result<std::vector<TcpContact>> decode_contacts(std::span<const std::string> texts, const ClusterKey* key) {
  std::vector<TcpContact> contacts;
  for (const std::string& text : texts) {
    auto contact = decode_contact(text, key);
    if (!contact.ok()) return with_context(contact.error(), fmt::format("rank {}", contacts.size()));
    contacts.push_back(std::move(*contact));
  }
  const auto local = [](const TcpContact& contact) { return is_loopback(contact.address); };
  const auto first = std::ranges::find_if(contacts, local);
  if (first == contacts.end() || std::ranges::all_of(contacts, local)) return contacts;
  return fail(ErrorCode::invalid_argument,
              "rank {} can be reached at {} only, which is of no use to ranks on other nodes: its node needs an "
              "address that the others reach (under a launcher MASTER_ADDR decides, which must not be a loopback one)",
              first - contacts.begin(), first->address);
}

std::string contact_key(int rank) {
  return fmt::format("tcp/{}", rank);
}

// What a rank has published: its contact, or why it has none.
std::string publication_of(const Result<TcpDoor>& door) {
  WireWriter writer;
  writer.boolean(door.ok());
  writer.u32(door.ok() ? 0 : static_cast<std::uint32_t>(door.error().code));
  writer.text(door.ok() ? door->contact() : door.error().message);
  return writer.take();
}

Result<std::string> contact_in(const std::string& publication) {
  WireReader reader(publication);
  const bool there = reader.boolean();
  const auto code = reader.u32();
  std::string text = reader.text();
  CHORUS_TRY_VOID(reader.finish());
  if (there) return text;
  return Error{static_cast<ErrorCode>(std::min(code, static_cast<std::uint32_t>(ErrorCode::internal))), text};
}

}  // namespace

Result<TcpDoor> TcpDoor::open(const TcpTransportOptions& options) {
  CHORUS_TRY(const auto addresses, tcp::resolve(options.address, 0));
  const tcp::Address& wanted = addresses.front();
  CHORUS_TRY_VOID(tcp::check_guarded(wanted, options.key.get()));
  if (wanted.is_wildcard()) {
    return fail(ErrorCode::invalid_argument, "{} is no address that other ranks can reach: give one of this host's",
                options.address);
  }
  TcpDoor door;
  door.options_ = options;
  CHORUS_TRY(door.listener_, tcp::listen(wanted, SOMAXCONN));
  CHORUS_TRY(const tcp::Address listening, tcp::local_address(door.listener_.get()));
  door.contact_ =
      encode_contact({listening.host(), listening.port(), random_bytes(tcp_token_bytes)}, options.key.get());
  return door;
}

Result<std::unique_ptr<Transport>> TcpDoor::join(int rank, std::span<const std::string> contacts) {
  return join(rank, contacts, deadline_after(options_.join_timeout_ms));
}

Result<std::unique_ptr<Transport>> TcpDoor::join(int rank, std::span<const std::string> contacts,
                                                 Nanoseconds deadline) {
  CHECK(listener_.valid(), "a door is joined through once");
  const UniqueFd listener = std::move(listener_);
  const auto size = contacts.size();
  if (size > tcp_world_size_max || rank < 0 || static_cast<std::size_t>(rank) >= size) {
    return fail(ErrorCode::invalid_argument, "rank {} of {}: a world has at most {} ranks", rank, size,
                tcp_world_size_max);
  }
  if (contacts[static_cast<std::size_t>(rank)] != contact_) {
    return fail(ErrorCode::invalid_argument, "the contact of rank {} is not that of this door", rank);
  }
  CHORUS_TRY(const std::vector<TcpContact> decoded, decode_contacts(contacts, options_.key.get()));
  CHORUS_TRY(std::vector<TcpLink> links,
             connect_tcp_links({listener.get(), rank, decoded, options_.key.get(), deadline}));
  return make_tcp_transport(rank, options_.exchange_timeout_ms, std::move(links));
}

Result<std::unique_ptr<Transport>> join_tcp_world(Store& store, int rank, int size,
                                                  const TcpTransportOptions& options) {
  CHECK(size >= 1 && size <= tcp_world_size_max && rank >= 0 && rank < size, "rank {} of {}", rank, size);
  const Nanoseconds deadline = deadline_after(options.join_timeout_ms);
  auto door = TcpDoor::open(options);
  CHORUS_TRY_VOID(store.set(contact_key(rank), publication_of(door), milliseconds_until(deadline)));
  if (!door.ok()) return with_context(door.error(), fmt::format("rank {}", rank));
  std::vector<std::string> keys, contacts;
  for (int peer = 0; peer < size; ++peer) keys.push_back(contact_key(peer));
  CHORUS_TRY_VOID(store.wait(keys, milliseconds_until(deadline)));
  for (const std::string& key : keys) {
    CHORUS_TRY(const std::string publication, store.get(key, milliseconds_until(deadline)));
    auto contact = contact_in(publication);
    if (!contact.ok()) return with_context(contact.error(), fmt::format("rank {}", contacts.size()));
    contacts.push_back(std::move(*contact));
  }
  return door->join(rank, contacts, deadline);
}

}  // namespace chorus
