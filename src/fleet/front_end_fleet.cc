#include "fleet/front_end_fleet.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "fleet/fleet_client.h"
#include "fleet/poll_set.h"
#include "fleet/replica_link.h"

namespace chorus {
namespace {

constexpr int wait_ms_max = 250;  // how late a broken socket is reported
// An engine that dies breaks its sockets before its host can tell of it. For so long that news is waited for; then the
// host is told that only this socket broke.
constexpr Nanoseconds news_timeout = 1'000'000'000;

class FrontEndFleet final : public Fleet {
 public:
  FrontEndFleet(const EngineConfig& config, ClientId client, std::unique_ptr<Connection> host, FleetTimes times,
                const PrefixKey& prefix_key)
      : client_(config, client, prefix_key), host_(std::move(host)), times_(std::move(times)) {}

  Result<RequestId> submit(Request request, std::optional<int> dp_rank) override {
    if (dp_rank) CHORUS_TRY_VOID(client_.check_rank(*dp_rank));
    return client_.dispatcher().submit(std::move(request), dp_rank);
  }
  void abort(RequestId request) override { client_.dispatcher().abort(request); }
  void abort_choice(RequestId request, std::uint32_t choice) override {
    client_.dispatcher().abort_choice(request, choice);
  }

  std::uint64_t reset_prefix_caches() override { return client_.dispatcher().reset_prefix_caches(); }
  bool prefix_caches_are_reset(std::uint64_t number) const override {
    return client_.dispatcher().prefix_caches_are_reset(number);
  }

  Result<void> poll(int timeout_ms, std::vector<FleetEvent>* events) override;
  FleetWait wait() override;
  std::vector<ReplicaStatus> replicas() const override;
  DispatcherCounters counters() const override { return client_.dispatcher().counters(); }
  FleetTimes times() const override { return times_; }

 private:
  struct Replica {
    ReplicaLink link;
    bool open = false;  // gets requests, as far as the host is concerned
    EngineLoad load;
    std::optional<Nanoseconds> broken_at;  // its socket is, and no news of its death has come
  };

  Result<void> turn(int timeout_ms);
  Result<void> read_host();
  Result<void> take_news(Frame frame);
  void read_from(Replica& replica);
  Result<void> take(Replica& replica, const Frame& frame);
  void report_fault(const Placement& replica, const std::string& reason);
  void report_broken();
  Result<void> send();
  void append_descriptors(std::vector<pollfd>* items);
  bool has_events() const { return client_.dispatcher().has_events(); }

  FleetClient client_;
  std::unique_ptr<Connection> host_;
  FleetTimes times_;
  std::map<int, Replica> replicas_;  // by rank: present incarnations
  PollSet waited_for_;
};

// The host first, then the replicas in order.
void FrontEndFleet::append_descriptors(std::vector<pollfd>* items) {
  items->push_back(poll_item(*host_));
  for (auto& [rank, replica] : replicas_) items->push_back(replica.link.poll_item());
}

FleetWait FrontEndFleet::wait() {
  (void)send();  // what is wrong with the host is found by the next poll()
  std::vector<pollfd> items;
  append_descriptors(&items);
  waited_for_.update(items);
  return {waited_for_.fd(), has_events() ? 0 : wait_ms_max};
}

Result<void> FrontEndFleet::poll(int timeout_ms, std::vector<FleetEvent>* events) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  do {
    CHORUS_TRY_VOID(turn(has_events() ? 0 : milliseconds_until(deadline)));
  } while (!has_events() && monotonic_now() < deadline);
  client_.dispatcher().take_events(events);
  return {};
}

Result<void> FrontEndFleet::turn(int timeout_ms) {
  CHORUS_TRY_VOID(send());
  std::vector<pollfd> items;
  append_descriptors(&items);
  const int ready = ::poll(items.data(), items.size(), timeout_ms);
  CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
  if (ready > 0) {
    std::size_t next = 1;
    for (auto& [rank, replica] : replicas_) {
      const short seen = items[next++].revents;
      if ((seen & POLLOUT) != 0) replica.link.pump();
      if ((seen & ~POLLOUT) != 0) read_from(replica);
    }
    // After the replicas: what they said before their end comes before the news of it.
    CHORUS_TRY_VOID(read_host());
  }
  report_broken();
  return send();
}

Result<void> FrontEndFleet::read_host() {
  while (true) {
    auto frame = host_->receive();
    if (!frame.ok()) return with_context(frame.error(), "the parent");
    if (!frame->has_value()) return {};
    CHORUS_TRY_VOID(take_news(std::move(**frame)));
  }
}

Result<void> FrontEndFleet::take_news(Frame frame) {
  if (static_cast<MessageType>(frame.type) != MessageType::news) {
    return fail(ErrorCode::invalid_argument, "message of type {} is none that a host sends", frame.type);
  }
  CHORUS_TRY(const NewsMessage message, decode_news(frame.payload));
  const ReplicaNews& news = message.news;
  const int rank = news.replica.rank;
  if (frame.descriptor.valid()) {
    CHORUS_TRY(auto connection, make_socket_connection(std::move(frame.descriptor)));
    replicas_.erase(rank);
    replicas_.emplace(rank, Replica{ReplicaLink::adopt(news.replica, std::move(connection)), false, {}, {}});
  }
  const auto found = replicas_.find(rank);
  const bool present = found != replicas_.end() && found->second.link.replica() == news.replica;
  const bool ended = news.state == ReplicaNews::State::died || news.state == ReplicaNews::State::removed;
  if (present) found->second.open = news.state == ReplicaNews::State::ready;
  if (present && ended) {
    read_from(found->second);  // what it said last still counts
    const std::uint32_t requests = client_.dispatcher().ledger().requests_on(rank);
    if (requests > 0) log(LogLevel::info, "{} requests of worker rank {} go on elsewhere", requests, rank);
    replicas_.erase(found);
  }
  client_.on_news(news, message.reason);
  return {};
}

void FrontEndFleet::read_from(Replica& replica) {
  while (replica.link.connected() && client_.has_room_for_frames()) {
    auto frame = replica.link.receive();
    if (!frame.ok()) {
      replica.link.disconnect();
      replica.broken_at = monotonic_now();
      return;
    }
    if (!frame->has_value()) return;
    if (const auto taken = take(replica, **frame); !taken.ok()) {
      replica.link.disconnect();
      return report_fault(replica.link.replica(), taken.error().message);
    }
  }
}

Result<void> FrontEndFleet::take(Replica& replica, const Frame& frame) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::events:
      return client_.on_events(replica.link.replica(), frame.payload);
    case MessageType::load: {
      CHORUS_TRY(const LoadMessage message, decode_load(frame.payload));
      replica.load = message.load;
      return client_.on_load(replica.link.replica(), message);
    }
    case MessageType::prefix_cache_reset:
      return client_.on_prefix_cache_reset(replica.link.replica(), frame.payload);
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that an engine sends", frame.type);
  }
}

void FrontEndFleet::report_fault(const Placement& replica, const std::string& reason) {
  // A host that cannot be told is gone, which the next read finds.
  (void)host_->send(static_cast<std::uint8_t>(MessageType::replica_fault), 0,
                    encode(ReplicaFaultMessage{replica, reason}));
}

void FrontEndFleet::report_broken() {
  for (auto& [rank, replica] : replicas_) {
    if (!replica.broken_at || monotonic_now() - *replica.broken_at < news_timeout) continue;
    replica.broken_at.reset();
    report_fault(replica.link.replica(), "closed its connection to a front end");
  }
}

Result<void> FrontEndFleet::send() {
  for (const ClientNote& note : client_.dispatcher().take_notes()) {
    CHORUS_TRY_VOID(host_->send(static_cast<std::uint8_t>(MessageType::note), 0, encode(note)));
  }
  for (auto& [rank, replica] : replicas_) {
    ReplicaLink& to = replica.link;
    while (to.connected() && to.has_room()) {
      auto message = client_.next_message(to.replica());
      if (!message) break;
      to.queue(message->first, std::move(message->second));
    }
    to.pump();
  }
  return host_->flush();
}

std::vector<ReplicaStatus> FrontEndFleet::replicas() const {
  std::vector<ReplicaStatus> status;
  for (int rank = client_.first_rank(); rank < client_.ranks(); ++rank) {
    const auto found = replicas_.find(rank);
    ReplicaStatus& one = status.emplace_back();
    one.dp_rank = rank;
    one.in_flight = client_.dispatcher().ledger().requests_on(rank);
    if (found == replicas_.end()) continue;
    one.alive = true;
    one.condition = found->second.open ? ReplicaCondition::ready : ReplicaCondition::draining;
    one.epoch = found->second.link.replica().epoch;
    one.load = found->second.load;
  }
  return status;
}

}  // namespace

Result<std::unique_ptr<Fleet>> make_front_end_fleet(const EngineConfig& config, ClientId client, UniqueFd to_host,
                                                    FleetTimes times, const PrefixKey& prefix_key) {
  CHORUS_TRY(auto connection, make_socket_connection(std::move(to_host)));
  return std::unique_ptr<Fleet>(
      std::make_unique<FrontEndFleet>(config, client, std::move(connection), std::move(times), prefix_key));
}

}  // namespace chorus
