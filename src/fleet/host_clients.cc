// Front ends in other processes.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/host.h"

namespace chorus {

ClientId FleetHost::add_client(std::unique_ptr<Connection> connection, RankRange serves) {
  const ClientId client = next_client_++;
  ClientLink& link = *clients_.emplace_back(std::make_unique<ClientLink>(client, std::move(connection), serves));
  for (Rank& rank : ranks_) {
    if (rank.link && is_ready(rank.link->replica().rank)) link.introduce(&*rank.link);
  }
  for (const ReplicaNews& news : coordinator_.client_joined(client, serves)) link.tell(news, {});
  return client;
}

void FleetHost::remove_client(ClientId client) {
  if (std::erase_if(clients_, [client](const auto& link) { return link->client() == client; }) == 0) return;
  coordinator_.client_left(client, monotonic_now());
  act();
}

bool FleetHost::has_client(ClientId client) const {
  return std::ranges::any_of(clients_, [client](const auto& link) { return link->client() == client; });
}

void FleetHost::hear_clients() {
  std::vector<ClientId> gone;
  for (const auto& client : clients_) {
    if (const auto heard = hear(*client); !heard.ok()) {
      log(LogLevel::debug, "front end {} of the fleet has ended: {}", client->client(), heard.error().message);
      gone.push_back(client->client());
    }
  }
  for (const ClientId client : gone) remove_client(client);
  act();
}

Result<void> FleetHost::hear(ClientLink& client) {
  CHORUS_TRY(const ClientLink::Said said, client.turn());
  for (const ClientNote& note : said.notes) coordinator_.on_note(client.client(), note, monotonic_now());
  for (const ReplicaFaultMessage& message : said.faults) {
    const int rank = message.replica.rank;
    if (rank < 0 || rank >= ranks()) return fail(ErrorCode::invalid_argument, "no data parallel rank {}", rank);
    auto& link = at(rank).link;
    if (link && link->replica() == message.replica) fault(*link, message.reason);
  }
  return {};
}

// Of the front end in this process exactly, of others as the replica last said.
std::uint32_t FleetHost::requests_on(int rank) const {
  if (client_ != nullptr) return client_->dispatcher().ledger().requests_on(rank);
  return at(rank).load.waiting + at(rank).load.running;
}

}  // namespace chorus
