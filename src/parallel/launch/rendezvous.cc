#include "parallel/launch/rendezvous.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/log.h"
#include "config/engine_config.h"
#include "parallel/group.h"
#include "parallel/launch/rendezvous_handover.h"
#include "parallel/launch/rendezvous_member.h"
#include "parallel/store/store_check.h"
#include "parallel/transport/node_transport.h"
#include "parallel/transport/tcp_socket.h"
#include "parallel/transport/tcp_transport.h"

namespace chorus {
namespace {

constexpr int report_missing_ms = 10'000;
constexpr int linger_ms = 1'000;

using Member = RendezvousMember;
using Fingerprint = decltype(Member::fingerprint);

std::string rank_key(int rank) {
  return fmt::format("rank/{}", rank);
}

std::string left_key(int rank) {
  return fmt::format("left/{}", rank);
}

std::string value_in(const Fingerprint& fingerprint, const std::string& name) {
  const auto found = std::ranges::find(fingerprint, name, &std::pair<std::string, std::string>::first);
  return found == fingerprint.end() ? "nothing" : found->second;
}

class Rendezvous {
 public:
  Rendezvous(std::shared_ptr<Store> store, int rank, int size, const JoinOptions& options)
      : store_(make_prefix_store(std::move(store), options.world)),
        rank_(rank),
        size_(size),
        options_(options),
        deadline_(deadline_after(options.timeout_ms)) {}

  Result<std::shared_ptr<Transport>> join() {
    auto joined = come_together();
    leave(joined.ok());
    return joined;
  }

 private:
  Result<std::shared_ptr<Transport>> come_together() {
    CHORUS_TRY_VOID(publish());
    CHORUS_TRY_VOID(wait_for_all());
    CHORUS_TRY(const std::vector<Member> members, read_members());
    CHORUS_TRY_VOID(compare(members));
    if (size_ == 1) return std::shared_ptr<Transport>();
    std::vector<int> near;
    for (int rank = 0; rank < size_; ++rank) {
      if (member_at(members, rank).node == member_at(members, rank_).node) near.push_back(rank);
    }
    const auto ranks_near = static_cast<int>(near.size());
    log(LogLevel::debug, "rank {}: joining {} ranks, {} of them on this node", rank_, size_, ranks_near);
    if (ranks_near < size_) return join_nodes(near);
    CHORUS_TRY(std::unique_ptr<Transport> transport, join_shared_memory(near));
    return std::shared_ptr<Transport>(std::move(transport));
  }

  // What one rank refuses all of them refuse, if they get to read as much: a store that rank 0 has ends with it.
  void leave(bool joined) {
    if (size_ == 1 || !store_->set(left_key(rank_), "", linger_ms).ok() || joined || rank_ != 0) return;
    std::vector<std::string> others;
    for (int rank = 1; rank < size_; ++rank) others.push_back(left_key(rank));
    (void)store_->wait(others, linger_ms);  // who is missing does not come now
  }

  int left_ms() const { return milliseconds_until(deadline_); }
  static const Member& member_at(const std::vector<Member>& members, int rank) {
    return members[static_cast<std::size_t>(rank)];
  }

  Result<void> publish() {
    Member member{options_.node_identity, static_cast<std::int32_t>(::getpid()), options_.fingerprint};
    if (member.node.empty()) {
      CHORUS_TRY(member.node, node_identity());
    }
    CHORUS_TRY(const std::int64_t joined, store_->add(fmt::format("joined/{}", rank_), 1, left_ms()));
    if (joined != 1) {
      return fail(ErrorCode::invalid_argument,
                  "rank {} has joined {} already: two processes have this rank, or the store is an earlier job's",
                  rank_, options_.world);
    }
    return store_->set(rank_key(rank_), encode_member(member), left_ms());
  }

  Result<void> wait_for_all() {
    std::vector<std::string> keys;
    for (int rank = 0; rank < size_; ++rank) keys.push_back(rank_key(rank));
    while (true) {
      const int left = left_ms();
      const auto waited = store_->wait(keys, std::min(left, report_missing_ms));
      if (waited.ok() || waited.error().code != ErrorCode::deadline_exceeded) return waited;
      CHORUS_TRY(const std::string missing, missing_ranks());
      if (left <= report_missing_ms) {
        return fail(ErrorCode::deadline_exceeded, "ranks {} of {} did not join {} within {} ms", missing, size_,
                    options_.world, options_.timeout_ms);
      }
      log(LogLevel::warning, "rank {} waits for ranks {} of {} to join {}", rank_, missing, size_, options_.world);
    }
  }

  Result<std::string> missing_ranks() {
    std::vector<int> missing;
    for (int rank = 0; rank < size_; ++rank) {
      const std::string key = rank_key(rank);
      CHORUS_TRY(const bool there, store_->check({&key, 1}, 5'000));
      if (!there) missing.push_back(rank);
    }
    return fmt::format("{}", fmt::join(missing, ", "));
  }

  Result<std::vector<Member>> read_members() {
    std::vector<Member> members;
    for (int rank = 0; rank < size_; ++rank) {
      CHORUS_TRY(const std::string bytes, store_->get(rank_key(rank), std::max(left_ms(), 1000)));
      auto member = decode_member(bytes);
      if (!member.ok()) return with_context(member.error(), fmt::format("rank {} is another version of Chorus", rank));
      members.push_back(std::move(*member));
    }
    return members;
  }

  // All ranks see the same members and so come to the same conclusion.
  Result<void> compare(const std::vector<Member>& members) const {
    const Fingerprint& first = members[0].fingerprint;
    for (std::size_t rank = 1; rank < members.size(); ++rank) {
      const Fingerprint& other = members[rank].fingerprint;
      if (other == first) continue;
      std::vector<std::string> differences;
      const auto compare_names_of = [&](const Fingerprint& names) {
        for (const auto& [name, value] : names) {
          const std::string a = value_in(first, name), b = value_in(other, name);
          std::string line = fmt::format("{}: {} against {}", name, a, b);
          if (a != b && std::ranges::find(differences, line) == differences.end())
            differences.push_back(std::move(line));
        }
      };
      compare_names_of(first);
      compare_names_of(other);
      if (differences.empty()) differences.push_back("the order of its settings");
      return fail(ErrorCode::invalid_argument, "ranks 0 and {} were started with different settings: {}", rank,
                  fmt::join(differences, "; "));
    }
    return {};
  }

  // The lowest rank of the node makes the memory. `near`: this node's ranks, ascending.
  Result<std::unique_ptr<Transport>> join_shared_memory(const std::vector<int>& near) {
    const int giver = near.front();
    const auto size = static_cast<int>(near.size());
    const auto number = static_cast<int>(std::ranges::find(near, rank_) - near.begin());
    const auto store = make_prefix_store(store_, fmt::format("node/{}", giver));
    if (rank_ == giver) {
      auto world = SharedWorld::create(size);
      if (!world.ok()) {
        refuse_descriptor(*store, world.error().message, deadline_);
        return world.error();
      }
      std::vector<int> descriptors(static_cast<std::size_t>(size_), -1);
      for (const int rank : near) descriptors[static_cast<std::size_t>(rank)] = world->fd();
      CHORUS_TRY_VOID(hand_over_descriptors(*store, descriptors, deadline_, giver));
      return world->join(number, options_.exchange_timeout_ms, near);
    }
    CHORUS_TRY(UniqueFd fd, receive_descriptor(*store, rank_, deadline_, giver));
    CHORUS_TRY(const SharedWorld world, SharedWorld::open(fd.get()));
    fd.release();
    if (world.size() != size) {
      return fail(ErrorCode::invalid_argument, "rank {}'s memory is for {} ranks, and the node of rank {} has {}",
                  giver, world.size(), rank_, size);
    }
    return world.join(number, options_.exchange_timeout_ms, near);
  }

  // TCP first: what fails inside a node then reaches the ranks of the others, in the barrier.
  Result<std::shared_ptr<Transport>> join_nodes(const std::vector<int>& near) {
    CHORUS_TRY(std::unique_ptr<Transport> tcp, join_tcp());
    std::unique_ptr<Transport> shared;
    if (near.size() > 1) {
      auto joined = join_shared_memory(near);
      if (!joined.ok()) {
        tcp->abort(joined.error().message);
        return joined.error();
      }
      shared = std::move(*joined);
    }
    const std::shared_ptr<Transport> transport = make_node_transport(std::move(tcp), std::move(shared), near);
    std::vector<int> everyone(static_cast<std::size_t>(size_));
    std::iota(everyone.begin(), everyone.end(), 0);
    CHORUS_TRY_VOID(Group(transport, everyone).barrier());
    return transport;
  }

  Result<std::unique_ptr<Transport>> join_tcp() {
    TcpTransportOptions tcp;
    tcp.address = options_.address.empty() ? store_->local_address() : options_.address;
    if (tcp.address.empty()) tcp.address = "127.0.0.1";
    tcp.key = options_.key;
    tcp.join_timeout_ms = left_ms();
    tcp.exchange_timeout_ms = options_.exchange_timeout_ms;
    return join_tcp_world(*store_, rank_, size_, tcp);
  }

  std::shared_ptr<Store> store_;
  int rank_, size_;
  const JoinOptions& options_;
  Nanoseconds deadline_;
};

}  // namespace

Result<std::shared_ptr<Transport>> join_world(std::shared_ptr<Store> store, int rank, int size,
                                              const JoinOptions& options) {
  CHECK(size >= 1 && rank >= 0 && rank < size, "rank {} of {}", rank, size);
  if (size > tcp_world_size_max || options.fingerprint.size() > rendezvous_pairs_max) {
    return fail(ErrorCode::invalid_argument, "a world of {} ranks with {} settings: the limits are {} and {}", size,
                options.fingerprint.size(), tcp_world_size_max, rendezvous_pairs_max);
  }
  return Rendezvous(std::move(store), rank, size, options).join();
}

}  // namespace chorus
