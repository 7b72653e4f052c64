#include "fleet/fleet_client.h"

#include <algorithm>

#include "cluster/balance/load_balancer.h"
#include "net/frame.h"

namespace chorus {
namespace {

// A prompt that would not fit in a frame (4 bytes per token, the rest is small beside it).
constexpr std::size_t prompt_tokens_max = frame_payload_bytes_max / 8;

DispatcherConfig dispatcher_config(const EngineConfig& config, ClientId client, const PrefixKey& prefix_key) {
  DispatcherConfig dispatcher;
  dispatcher.client = client;
  dispatcher.by_priority = config.scheduling_policy == SchedulingPolicy::priority;
  dispatcher.prefix_key = prefix_key;
  dispatcher.block_size = static_cast<std::size_t>(config.block_size);
  dispatcher.limits.prompt_tokens_max = prompt_tokens_max;
  dispatcher.limits.sequences_per_replica_max = 2 * static_cast<std::uint32_t>(config.max_num_seqs);
  return dispatcher;
}

Result<void> accept(const Judgement& judgement) {
  if (judgement.verdict == Verdict::faulty) return fail(ErrorCode::invalid_argument, "{}", judgement.fault);
  return {};
}

}  // namespace

FleetClient::FleetClient(const EngineConfig& config, ClientId client, const PrefixKey& prefix_key)
    : id_(client),
      first_rank_(config.parallel.door_begin()),
      ranks_(config.parallel.door_end()),
      dispatcher_(dispatcher_config(config, client, prefix_key), make_load_balancer(config.load_balancer)) {}

Result<void> FleetClient::check_rank(int dp_rank) const {
  if (dp_rank >= first_rank_ && dp_rank < ranks_) return {};
  return no_such_rank(dp_rank, first_rank_, ranks_);
}

void FleetClient::on_news(const ReplicaNews& news, const std::string& reason) {
  ranks_ = std::max(ranks_, news.replica.rank + 1);
  dispatcher_.on_news(news, reason);
}

Result<void> FleetClient::on_events(Placement from, const std::string& events) {
  CHORUS_TRY(std::vector<TokenEvent> decoded, decode_events(events));
  for (TokenEvent& event : decoded) CHORUS_TRY_VOID(accept(dispatcher_.on_event(from, std::move(event))));
  return {};
}

Result<void> FleetClient::on_load(Placement from, const LoadMessage& message) {
  dispatcher_.on_prefixes(from, message.prefixes);
  const EngineLoad& load = message.load;
  for (const auto& [client, messages] : message.messages_received) {
    if (client != id_) continue;
    CHORUS_TRY_VOID(accept(dispatcher_.on_report(from, {load.waiting, load.running, load.kv_blocks_free, messages})));
  }
  return {};
}

Result<void> FleetClient::on_prefix_cache_reset(Placement from, const std::string& payload) {
  CHORUS_TRY(const PrefixCacheResetMessage message, decode_prefix_cache_reset(payload));
  if (message.client == id_) dispatcher_.on_prefix_cache_reset(from, message.number);
  return {};
}

std::optional<std::pair<MessageType, std::string>> FleetClient::next_message(Placement to) {
  const std::optional<ReplicaMessage> message = dispatcher_.take_message(to);
  if (!message) return std::nullopt;
  switch (message->kind) {
    case ReplicaMessage::Kind::add:
      return std::pair(MessageType::add, encode(message->request));
    case ReplicaMessage::Kind::abort:
      return std::pair(MessageType::abort, encode(AbortMessage{message->id, {}}));
    case ReplicaMessage::Kind::abort_choice:
      return std::pair(MessageType::abort, encode(AbortMessage{message->id, message->choice}));
    case ReplicaMessage::Kind::reset_prefix_cache:
      return std::pair(MessageType::prefix_cache_reset,
                       encode(PrefixCacheResetMessage{message->id.client, message->id.number}));
  }
  return std::nullopt;
}

}  // namespace chorus
