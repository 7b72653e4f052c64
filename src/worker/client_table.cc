#include "worker/client_table.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "worker/child_start.h"

namespace chorus {
namespace {

constexpr std::size_t events_payload_bytes = std::size_t{8} << 20;

}  // namespace

Result<void> ClientTable::announce(ClientId client, std::unique_ptr<Connection> connection) {
  if (clients_.contains(client)) {
    return fail(ErrorCode::invalid_argument, "client {} is here already: give each a new id", client);
  }
  clients_.emplace(client, Client{std::move(connection), 0, false, monotonic_now()});
  return {};
}

void ClientTable::gone(ClientId client) {
  core_->abort_client(client);
  clients_.erase(client);
}

void ClientTable::drop(ClientId client, const Error& error) {
  const std::size_t requests = core_->abort_client(client);
  const bool parted_in_order = error.code == ErrorCode::unavailable && requests == 0;
  log(parted_in_order ? LogLevel::debug : LogLevel::warning,
      "client {} of the engine is dropped ({}): its {} requests are aborted", client, error.message, requests);
  clients_.erase(client);
}

Result<void> ClientTable::take_shared(const Frame& frame) {
  return take(frame, nullptr);
}

Result<ClientTable::Client*> ClientTable::client_of(ClientId id, const Connection* source) {
  const auto at = clients_.find(id);
  if (at != clients_.end() && at->second.connection.get() == source) return &at->second;
  return fail(ErrorCode::invalid_argument, "this is not the connection of client {}", id);
}

Result<ClientTable::Client*> ClientTable::sender_of(RequestId request, const Connection* source) {
  const auto client = client_of(request.client, source);
  if (client.ok()) return client;
  return fail(ErrorCode::invalid_argument, "request {} came over a connection that is not its client's", request);
}

Result<void> ClientTable::take(const Frame& frame, const Connection* source) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::add: {
      CHORUS_TRY(Request request, decode_request(frame.payload));
      CHORUS_TRY(Client* const client, sender_of(request.id, source));
      if (core_->contains(request.id)) {
        return fail(ErrorCode::invalid_argument, "ADD of request {}, which is here already: give each a new id",
                    request.id);
      }
      core_->add(std::move(request));
      ++client->messages_received;
      has_unreported_ = true;
      return {};
    }
    case MessageType::abort: {
      CHORUS_TRY(const AbortMessage message, decode_abort(frame.payload));
      CHORUS_TRY(Client* const client, sender_of(message.request, source));
      ++client->messages_received;
      has_unreported_ = true;
      if (message.choice.has_value()) {
        core_->abort_choice(message.request, *message.choice);
      } else {
        core_->abort(message.request);
      }
      return {};
    }
    case MessageType::prefix_cache_reset: {
      CHORUS_TRY(const PrefixCacheResetMessage message, decode_prefix_cache_reset(frame.payload));
      CHORUS_TRY(Client* const client, client_of(message.client, source));
      core_->reset_prefix_cache();
      has_unreported_ = true;
      return send(client, MessageType::prefix_cache_reset, frame.payload);
    }
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that a client sends", frame.type);
  }
}

Result<void> ClientTable::receive(Client* client) {
  while (true) {
    CHORUS_TRY(const std::optional<Frame> frame, client->connection->receive());
    if (!frame.has_value()) return {};
    if (frame->epoch == epoch_) CHORUS_TRY_VOID(take(*frame, client->connection.get()));
  }
}

Result<void> ClientTable::flush(Client* client) {
  const std::size_t before = client->connection->queued_bytes();
  CHORUS_TRY_VOID(client->connection->flush());
  if (before == 0 || client->connection->queued_bytes() < before) client->took_at = monotonic_now();
  return {};
}

bool ClientTable::waits_for_readers(Nanoseconds now) const {
  return std::ranges::any_of(clients_, [&](const auto& entry) {
    const Client& client = entry.second;
    return client.connection && client.connection->queued_bytes() > limits_.behind_bytes &&
           now - client.took_at < limits_.reader_patience;
  });
}

void ClientTable::serve() {
  for (auto at = clients_.begin(); at != clients_.end();) {
    auto& [id, client] = *at++;  // drop() ends it alone
    if (!client.connection) continue;
    Result<void> served = receive(&client);
    if (served.ok()) served = flush(&client);
    if (!served.ok()) drop(id, served.error());
  }
}

Result<void> ClientTable::send_shared(MessageType type, std::string payload) {
  CHORUS_TRY_VOID(send_message(control_, type, epoch_, std::move(payload)));
  if (control_->queued_bytes() <= limits_.queue_bytes_max) return {};
  return flush_within(control_, limits_.control_timeout_ms);
}

Result<void> ClientTable::send(Client* client, MessageType type, std::string payload) {
  if (!client->connection) return send_shared(type, std::move(payload));
  CHORUS_TRY_VOID(send_message(client->connection.get(), type, epoch_, std::move(payload)));
  if (client->connection->queued_bytes() <= limits_.queue_bytes_max) return {};
  return fail(ErrorCode::resource_exhausted, "{} bytes of events wait for it, the limit is {}",
              client->connection->queued_bytes(), limits_.queue_bytes_max);
}

Result<void> ClientTable::tell_one(Client* client, std::span<TokenEvent> events) {
  std::vector<std::string> payloads = encode_events(events, events_payload_bytes);
  const auto oversized = [](const std::string& payload) { return payload.size() > frame_payload_bytes_max; };
  if (std::ranges::any_of(payloads, oversized)) {
    for (const std::size_t index : refuse_oversized(events, frame_payload_bytes_max)) {
      core_->abort_choice(events[index].request, events[index].choice);
    }
    payloads = encode_events(events, events_payload_bytes);
  }
  for (std::string& payload : payloads) CHORUS_TRY_VOID(send(client, MessageType::events, std::move(payload)));
  return {};
}

Result<void> ClientTable::tell(std::vector<TokenEvent>* events) {
  const auto by_client = [](const TokenEvent& event) { return event.request.client; };
  if (!std::ranges::is_sorted(*events, {}, by_client)) std::ranges::stable_sort(*events, {}, by_client);
  for (auto begin = events->begin(); begin != events->end();) {
    const ClientId id = begin->request.client;
    const auto end =
        std::find_if(begin, events->end(), [&](const TokenEvent& event) { return by_client(event) != id; });
    const auto at = clients_.find(id);
    CHECK(at != clients_.end(), "events of client {}, whose requests were aborted", id);
    const Result<void> told = tell_one(&at->second, {begin, end});
    begin = end;
    if (told.ok()) continue;
    if (!at->second.connection) return told;
    drop(id, told.error());
  }
  return {};
}

PrefixFeed ClientTable::feed_for(bool* has_prefixes, const PrefixFeed& changes) {
  if (!core_->feeds_prefixes() || std::exchange(*has_prefixes, true)) return changes;
  return core_->prefixes();
}

Result<void> ClientTable::report(const EngineLoad& load) {
  has_unreported_ = false;
  const PrefixFeed changes = core_->feeds_prefixes() ? core_->take_prefix_changes() : PrefixFeed();
  LoadMessage shared{load, {}};
  for (auto at = clients_.begin(); at != clients_.end();) {
    auto& [id, client] = *at++;  // drop() ends it alone
    if (!client.connection) {
      shared.messages_received.emplace_back(id, client.messages_received);
      continue;
    }
    const LoadMessage own{load, {{id, client.messages_received}}, feed_for(&client.has_prefixes, changes)};
    if (const auto sent = send(&client, MessageType::load, encode(own)); !sent.ok()) drop(id, sent.error());
  }
  if (!shared.messages_received.empty()) shared.prefixes = feed_for(&control_has_prefixes_, changes);
  return send_shared(MessageType::load, encode(shared));
}

void ClientTable::append_descriptors(std::vector<pollfd>* items) const {
  for (const auto& [id, client] : clients_) {
    if (!client.connection) continue;
    items->push_back(poll_item(*client.connection));
  }
}

}  // namespace chorus
