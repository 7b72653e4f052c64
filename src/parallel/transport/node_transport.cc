#include "parallel/transport/node_transport.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

constexpr Nanoseconds look_interval_ns = 100'000'000;
constexpr Nanoseconds try_tcp_again_ns = 1'000'000;
constexpr int far_away = -1;

class NodeTransport final : public Transport {
 public:
  NodeTransport(std::unique_ptr<Transport> tcp, std::unique_ptr<Transport> shared, const std::vector<int>& near)
      : Transport(tcp->rank(), tcp->size(), tcp->exchange_timeout_ms()),
        near_(static_cast<std::size_t>(tcp->size()), far_away) {
    for (std::size_t i = 0; i < near.size(); ++i) near_[static_cast<std::size_t>(near[i])] = static_cast<int>(i);
    tcp_.transport = std::move(tcp);
    shared_.transport = std::move(shared);
  }

  void abort(const std::string& reason) override {
    tcp_.transport->abort(reason);
    shared_.transport->abort(reason);
  }

  Result<void> begin(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) override {
    for (Part* part : {&shared_, &tcp_}) {
      part->outgoing.clear();
      part->incoming.clear();
    }
    for (const Outgoing& piece : outgoing) part_of(piece.peer).outgoing.push_back({number_of(piece.peer), piece.bytes});
    for (const Incoming& piece : incoming) part_of(piece.peer).incoming.push_back({number_of(piece.peer), piece.bytes});
    CHORUS_TRY_VOID(look_now_and_then(monotonic_now()));
    for (Part* part : {&shared_, &tcp_}) {
      part->done = part->outgoing.empty() && part->incoming.empty();
      if (part->done) continue;
      if (auto begun = part->transport->begin(part->outgoing, part->incoming); !begun.ok())
        return broken(begun.error());
    }
    return {};
  }

  Result<Moved> move() override {
    bool any = false;
    for (Part* part : {&shared_, &tcp_}) {
      if (part->done) continue;
      const auto moved = part->transport->move();
      if (!moved.ok()) return broken(moved.error());
      any = any || *moved != Moved::nothing;
      part->done = *moved == Moved::all;
    }
    return shared_.done && tcp_.done ? Moved::all : any ? Moved::something : Moved::nothing;
  }

  Result<bool> has_byte(int peer) override {
    auto there = part_of(peer).transport->has_byte(number_of(peer));
    if (!there.ok()) return broken(there.error());
    return there;
  }

  Result<void> rest(int peer, Nanoseconds until) override {
    const Nanoseconds now = monotonic_now();
    const bool both = peer < 0 && !shared_.done && !tcp_.done;
    Part& part = peer >= 0 ? part_of(peer) : shared_.done ? tcp_ : shared_;
    const Nanoseconds longest = now + (both ? try_tcp_again_ns : look_interval_ns);
    auto rested = part.transport->rest(peer >= 0 ? number_of(peer) : -1, std::min(until, longest));
    if (!rested.ok()) return broken(rested.error());
    return look_now_and_then(now);
  }

  Result<void> look() override {
    for (Part* part : {&shared_, &tcp_}) {
      if (auto whole = part->transport->look(); !whole.ok()) return broken(whole.error());
    }
    return {};
  }

  std::string missing() const override {
    if (shared_.done) return tcp_.transport->missing();
    if (tcp_.done) return shared_.transport->missing();
    return shared_.transport->missing() + " and " + tcp_.transport->missing();
  }

  Error break_world(Error error) override {
    const Error first = tcp_.transport->break_world(std::move(error));
    (void)shared_.transport->break_world(first);
    return first;
  }

 private:
  struct Part {
    std::unique_ptr<Transport> transport;
    // Its pieces of the exchange in progress.
    std::vector<Outgoing> outgoing;
    std::vector<Incoming> incoming;
    bool done = true;
  };

  int near(int peer) const {
    CHECK(peer >= 0 && peer < size() && peer != rank(), "rank {} of {} and rank {}", rank(), size(), peer);
    return near_[static_cast<std::size_t>(peer)];
  }
  Part& part_of(int peer) { return near(peer) == far_away ? tcp_ : shared_; }
  int number_of(int peer) const { return near(peer) == far_away ? peer : near(peer); }

  Result<void> look_now_and_then(Nanoseconds now) {
    if (now < next_look_) return {};
    next_look_ = now + look_interval_ns;
    return look();
  }

  // One of the two is: so is the other.
  Error broken(const Error& error) {
    (void)break_world(error);
    return error;
  }

  std::vector<int> near_;  // by rank: its number in the shared memory of this node, or far_away
  Part shared_, tcp_;
  Nanoseconds next_look_ = 0;
};

}  // namespace

std::unique_ptr<Transport> make_node_transport(std::unique_ptr<Transport> tcp, std::unique_ptr<Transport> shared,
                                               const std::vector<int>& ranks_of_this_node) {
  if (!shared) return tcp;
  CHECK(static_cast<std::size_t>(shared->size()) == ranks_of_this_node.size() &&
            std::ranges::is_sorted(ranks_of_this_node) && ranks_of_this_node.back() < tcp->size() &&
            ranks_of_this_node[static_cast<std::size_t>(shared->rank())] == tcp->rank(),
        "rank {} of {} is rank {} of {} on its node, which has {} ranks", tcp->rank(), tcp->size(), shared->rank(),
        shared->size(), ranks_of_this_node.size());
  return std::make_unique<NodeTransport>(std::move(tcp), std::move(shared), ranks_of_this_node);
}

}  // namespace chorus
