#include "launch/node_listener.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "worker/child_start.h"
#include "worker/cluster_fingerprint.h"

namespace chorus {
namespace {

constexpr Nanoseconds join_timeout = 10'000'000'000;
constexpr std::size_t joining_max = 1024;
constexpr std::size_t node_name_bytes_max = 256;

// Names come from outside and go into the log.
std::string printable(std::string name) {
  if (name.size() > node_name_bytes_max) name.resize(node_name_bytes_max);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return name;
}

}  // namespace

NodeListener::NodeListener(const EngineConfig& config, FrameListener listener)
    : parallel_(config.parallel), listener_(std::move(listener)) {}

Result<std::unique_ptr<NodeListener>> NodeListener::listen(const EngineConfig& config) {
  ListenOptions options;
  options.address = config.parallel.head_address();
  options.port = config.parallel.data_parallel_rpc_port;
  if (!config.cluster_key_file.empty()) {
    CHORUS_TRY(options.key, ClusterKey::read(config.cluster_key_file));
  }
  auto listener = FrameListener::listen(options);
  if (!listener.ok()) return with_context(listener.error(), "--data-parallel-address");
  return std::unique_ptr<NodeListener>(new NodeListener(config, std::move(*listener)));
}

void NodeListener::append_descriptors(std::vector<pollfd>* items) const {
  listener_.append_descriptors(items);
  for (const Joining& joining : joining_) items->push_back({joining.connection->fd(), POLLIN, 0});
}

std::optional<Nanoseconds> NodeListener::next_deadline() const {
  std::optional<Nanoseconds> next = listener_.next_deadline();
  if (!joining_.empty()) next = std::min(next.value_or(joining_.front().deadline), joining_.front().deadline);
  return next;
}

std::vector<NodeListener::Joined> NodeListener::take(Nanoseconds now, const Objection& objection) {
  for (auto& accepted : listener_.accept(now)) {
    joining_.push_back({std::move(accepted.connection), std::move(accepted.peer), now + join_timeout});
    if (joining_.size() > joining_max) joining_.pop_front();
  }
  std::vector<Joined> joined;
  std::erase_if(joining_, [&](Joining& joining) { return advance(&joining, now, objection, &joined); });
  return joined;
}

bool NodeListener::advance(Joining* joining, Nanoseconds now, const Objection& objection, std::vector<Joined>* joined) {
  auto frame = joining->connection->receive();
  if (frame.ok() && !frame->has_value() && now < joining->deadline) return false;
  if (!frame.ok() || !frame->has_value()) {
    log(LogLevel::warning, "{} did not say which replica it brings: {}", joining->peer,
        frame.ok() ? "no JOIN in time" : frame.error().message);
    return true;
  }
  Result<JoinMessage> join =
      fail(ErrorCode::invalid_argument, "message of type {} where JOIN was to come", (*frame)->type);
  if ((*frame)->type == static_cast<std::uint8_t>(MessageType::join)) join = decode_join((*frame)->payload);
  if (join.ok()) join->node = printable(join->node);
  std::optional<Error> refusal;
  if (!join.ok()) refusal = join.error();
  // One that an earlier connection of this same turn took counts as taken too.
  const auto taken = [&](const Joined& other) {
    return join.ok() && other.rank == join->dp_rank && other.worker == join->worker;
  };
  if (join.ok()) refusal = judge(*join, objection);
  if (!refusal && std::ranges::any_of(*joined, taken))
    refusal = fail(ErrorCode::unavailable, "rank {} has just joined", join->dp_rank);
  if (refusal) {
    last_refusal_ = fmt::format("node {} ({}): {}", join.ok() ? join->node : "", joining->peer, refusal->message);
    log(LogLevel::error, "Node {} ({}) is refused: {}", join.ok() ? join->node : "", joining->peer, refusal->message);
    (void)send_message(joining->connection.get(), MessageType::fatal, 0,
                       encode(FatalMessage{refusal->code, refusal->message}))
        .ok();
    return true;
  }
  joined->push_back({join->dp_rank, join->worker, join->node, std::move(joining->connection)});
  return true;
}

// invalid_argument: a retry does not help.
std::optional<Error> NodeListener::judge(const JoinMessage& join, const Objection& objection) const {
  if (const std::string different = differences(fingerprint_, join.fingerprint, join.node); !different.empty()) {
    return fail(ErrorCode::invalid_argument, "it would give other tokens than the head: {}", different);
  }
  if (join.dp_rank < 0 || join.dp_rank >= parallel_.data_parallel_size || parallel_.is_local(join.dp_rank)) {
    return fail(ErrorCode::invalid_argument, "node {} brings rank {}: the head waits for ranks {} to {}", join.node,
                join.dp_rank, parallel_.local_replicas(), parallel_.data_parallel_size - 1);
  }
  if (join.worker < 0 || join.worker >= (parallel_.workers_join_singly() ? parallel_.replica_size() : 1)) {
    return fail(ErrorCode::invalid_argument, "node {} brings worker {} of rank {}, which has {}", join.node,
                join.worker, join.dp_rank, parallel_.workers_join_singly() ? parallel_.replica_size() : 1);
  }
  if (const std::string why = objection(join.dp_rank, join.worker); !why.empty())
    return fail(ErrorCode::unavailable, "{}", why);
  return std::nullopt;
}

}  // namespace chorus
