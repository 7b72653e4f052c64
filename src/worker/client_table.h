// The clients of an engine: those who send it requests. Each has an id, which is in the ids of its requests, and either
// a connection for itself or shares the parent's, the control connection. What one client does harms no other: when its
// connection ends, when it sends what it may not or does not read what it is told, that client alone is dropped and its
// requests are aborted. On the shared connection there is the parent, without which the engine ends: an error there is
// the caller's.
//
// Single-threaded, like the engine.
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine_core.h"
#include "net/connection.h"
#include "protocol/messages.h"

namespace chorus {

struct ClientLimits {
  // Events told and not yet taken. A front end that reads is far below it: 32 MiB are about a million tokens. Beyond
  // it a client with a connection to this engine alone is dropped; the parent is waited for.
  std::size_t queue_bytes_max = std::size_t{32} << 20;
  int control_timeout_ms = 60'000;  // that the parent may take to read on
  // Behind by so much, a client that reads is waited for: an engine may be faster than the front ends that it feeds.
  // One that has taken nothing for so long is not, and the others go on.
  std::size_t behind_bytes = std::size_t{1} << 20;
  Nanoseconds reader_patience = 500'000'000;
};

class ClientTable {
 public:
  ClientTable(EngineCore* core, Connection* control, std::uint32_t epoch, const ClientLimits& limits)
      : core_(core), control_(control), epoch_(epoch), limits_(limits) {}

  // CLIENT: from now on this client is served, over `connection`, or over the shared one (null). Refuses an id that is
  // here already.
  Result<void> announce(ClientId client, std::unique_ptr<Connection> connection);
  // CLIENT_GONE: its requests are aborted. Ids that are not here are ignored: its connection may have ended first.
  void gone(ClientId client);

  // An ADD, ABORT or PREFIX_CACHE_RESET that came over the control connection.
  Result<void> take_shared(const Frame& frame);
  // Takes what has come over the others, and sends on what waits there.
  void serve();

  // A client is behind that reads: nothing more should be computed until it has read some of it.
  bool waits_for_readers(Nanoseconds now) const;

  // The events of a step, to those whose requests they are of. May change their order between clients.
  Result<void> tell(std::vector<TokenEvent>* events);
  // LOAD to every client and to the parent.
  Result<void> report(const EngineLoad& load);
  // A request or an abort came since (its client waits to hear that it did), or a reset.
  bool has_unreported() const { return has_unreported_; }

  // The descriptors that serve() reads and writes.
  void append_descriptors(std::vector<pollfd>* items) const;
  std::size_t size() const { return clients_.size(); }

 private:
  struct Client {
    std::unique_ptr<Connection> connection;  // null: shares the control connection
    std::uint64_t messages_received = 0;     // ADDs and ABORTs
    bool has_prefixes = false;               // it was told all that the prefix cache holds
    Nanoseconds took_at = 0;                 // something, the last time that its queue was looked at
  };
  using Clients = std::map<ClientId, Client>;

  // `source`: the connection it came over, null: the shared one.
  Result<void> take(const Frame& frame, const Connection* source);
  Result<Client*> client_of(ClientId id, const Connection* source);
  Result<Client*> sender_of(RequestId request, const Connection* source);
  Result<void> receive(Client* client);
  static Result<void> flush(Client* client);
  Result<void> send(Client* client, MessageType type, std::string payload);
  Result<void> send_shared(MessageType type, std::string payload);
  Result<void> tell_one(Client* client, std::span<TokenEvent> events);
  PrefixFeed feed_for(bool* has_prefixes, const PrefixFeed& changes);
  void drop(ClientId client, const Error& error);

  EngineCore* core_;
  Connection* control_;
  std::uint32_t epoch_;
  ClientLimits limits_;
  Clients clients_;
  bool has_unreported_ = false;
  bool control_has_prefixes_ = false;  // as Client::has_prefixes, of those that share that connection
};

}  // namespace chorus
