// Replicas whose workers are on several nodes, or step together with those of other nodes. Every worker comes by itself
// (a connection of its own to this head), so that the head can bring them together: a replica's incarnation begins when
// all of its workers are there, and ends with the first of them that is gone.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "fleet/fleet_impl.h"

namespace chorus {
namespace {

constexpr std::size_t contact_bytes_max = 1024;

}  // namespace

void FleetImpl::start_own_node(const FleetSetup& setup) {
  if (!config_.parallel.workers_join_singly() || own_replicas_ == 0) return;
  EngineConfig node = config_;
  node.headless = true;
  node.parallel.all_remote = false;
  node.parallel.data_parallel_size_local = own_replicas_;
  node.parallel.data_parallel_rpc_port = remote_->address().port();
  own_node_ = std::make_unique<OwnNode>(node, model_, setup.load_weights, setup.interrupted);
}

bool FleetImpl::all_joined(int rank) const {
  const auto first = joined_.begin() + static_cast<std::ptrdiff_t>(slot(rank, 0));
  return std::all_of(first, first + workers_that_join(), [](const auto& connection) { return connection != nullptr; });
}

void FleetImpl::begin_if_complete(int rank) {
  if (all_joined(rank)) coordinator_.joined(rank, monotonic_now());
}

// ": rank 0 lacks workers 1, 3; rank 2 lacks workers 1".
std::string FleetImpl::missing_workers() const {
  std::string text;
  for (int rank = 0; rank < ranks_ && workers_that_join() > 1; ++rank) {
    std::string workers;
    for (int worker = 0; worker < workers_that_join(); ++worker) {
      if (!joined_[slot(rank, worker)]) workers += fmt::format("{}{}", workers.empty() ? "" : ", ", worker);
    }
    if (workers.empty() || links_[static_cast<std::size_t>(rank)]) continue;
    text += fmt::format("{}rank {} lacks workers {}", text.empty() ? ": " : "; ", rank, workers);
  }
  return text;
}

// Workers that wait for others have nothing to say: what there is to read is their end.
void FleetImpl::watch_joined() {
  for (auto& connection : joined_) {
    if (!connection) continue;
    const auto frame = connection->receive();
    if (frame.ok() && !frame->has_value()) continue;
    const auto slot = static_cast<int>(&connection - joined_.data());
    log(LogLevel::warning, "Worker rank {} worker {} is gone before the others of its replica came{}",
        slot / workers_that_join(), slot % workers_that_join(), frame.ok() ? "" : ": " + frame.error().message);
    connection.reset();
    coordinator_.left(slot / workers_that_join());
  }
}

void FleetImpl::append_singly_joined(std::vector<pollfd>* items) const {
  for (const auto& connection : joined_) {
    if (connection) items->push_back({connection->fd(), POLLIN, 0});
  }
  for (const auto& of_rank : followers_) {
    for (const ReplicaLink& follower : of_rank) {
      const auto wanted = static_cast<short>(follower.wants_to_write() ? POLLIN | POLLOUT : POLLIN);
      items->push_back({follower.socket(), wanted, 0});
    }
  }
}

// Numbers of another head, which had the same nodes before, are others.
WelcomeMessage FleetImpl::welcome_of(Placement replica) const {
  const std::uint64_t shared = worlds_of_[static_cast<std::size_t>(replica.rank)];
  return {first_world_ + (shared > 0 ? shared : replica.epoch)};
}

void FleetImpl::begin_followers(Placement replica) {
  followers(replica.rank).clear();
  for (int worker = 1; worker < workers_that_join(); ++worker) {
    followers(replica.rank).push_back(ReplicaLink::adopt(replica, std::move(joined(replica.rank, worker))));
    followers(replica.rank).back().post(MessageType::welcome, encode(welcome_of(replica)));
  }
}

void FleetImpl::read_followers() {
  for (int rank = 0; rank < ranks_; ++rank) {
    for (std::size_t i = 0; link(rank) && link(rank)->connected() && i < followers(rank).size();) {
      ReplicaLink& follower = followers(rank)[i];
      const int worker = static_cast<int>(i) + 1;
      follower.pump();
      auto frame = follower.receive();
      if (frame.ok() && !frame->has_value()) {
        ++i;
        continue;
      }
      const auto handled = frame.ok() ? handle_follower(link(rank)->replica(), worker, **frame) : frame.error();
      // The engine's own words, or its node's, may be on their way: they are as likely to name the cause.
      if (!handled.ok() && link(rank))
        fault(*link(rank), fmt::format("worker {}: {}", worker, handled.error().message));
    }
  }
}

Result<void> FleetImpl::handle_follower(Placement replica, int worker, const Frame& frame) {
  ReplicaLink& follower = followers(replica.rank)[static_cast<std::size_t>(worker - 1)];
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::hello: {
      CHORUS_TRY_VOID(greet(follower, frame));
      const WorkerStart begin{engine_start_of(replica), replica.rank * config_.parallel.replica_size() + worker};
      follower.post(MessageType::config, encode(begin));
      return {};
    }
    case MessageType::contact:
      return take_contact(replica, worker, frame);
    case MessageType::ready:
      return {};
    case MessageType::fatal: {
      ReplicaLink& engine = *link(replica.rank);
      CHORUS_TRY(engine.last_words, decode_fatal(frame.payload));
      engine.reason = fmt::format("failed in its worker {}", worker);
      coordinator_.fault(replica, monotonic_now());
      act();
      return {};
    }
    default:
      return fail(ErrorCode::invalid_argument, "message of type {} is none that a worker sends", frame.type);
  }
}

Result<void> FleetImpl::take_contact(Placement replica, int worker, const Frame& frame) {
  CHORUS_TRY(ContactMessage message, decode_contact(frame.payload));
  const auto place = static_cast<std::size_t>(replica.rank * config_.parallel.replica_size() + worker);
  if (contacts_.empty() || !contacts_[place].empty()) return fail(ErrorCode::invalid_argument, "CONTACT out of turn");
  if (message.contact.empty() || message.contact.size() > contact_bytes_max) {
    return fail(ErrorCode::invalid_argument, "a contact of {} bytes; accepted: 1 to {}", message.contact.size(),
                contact_bytes_max);
  }
  contacts_[place] = std::move(message.contact);
  form_world(replica.rank);
  return {};
}

// Once all contacts of the rank's world are there.
void FleetImpl::form_world(int rank) {
  const int size = config_.parallel.replica_size();
  const bool together = config_.parallel.replicas_step_together();
  const int first = together ? 0 : rank, last = together ? ranks_ : rank + 1;
  const WorldMessage world{{contacts_.begin() + first * size, contacts_.begin() + last * size}};
  if (std::ranges::any_of(world.contacts, &std::string::empty)) return;
  const std::string message = encode(world);
  for (int member = first; member < last; ++member) {
    link(member)->post(MessageType::world, message);
    for (ReplicaLink& follower : followers(member)) follower.post(MessageType::world, message);
  }
}

}  // namespace chorus
