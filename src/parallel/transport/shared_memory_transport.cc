// Transport over a SharedMemory: rings moved in a loop, and waiting.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "parallel/transport/shared_memory_peers.h"
#include "parallel/transport/shared_memory_ring.h"
#include "parallel/transport/shared_memory_transport.h"

namespace chorus {
namespace {

constexpr Nanoseconds spin_ns = 8'000;
// Longest sleep before the others are looked after; the promise is a second.
constexpr Nanoseconds watch_interval_ns = 100'000'000;
// Copied between two publications: the receiver reads one part while the next is written.
constexpr std::size_t part_bytes = std::size_t{32} << 10;

// One cheap moment of a spinning wait.
inline void relax() {
#if defined(__x86_64__)
  for (int i = 0; i < 4; ++i) __builtin_ia32_pause();
#endif
}

class SharedTransport final : public Transport {
 public:
  SharedTransport(std::shared_ptr<SharedMemory> memory, int rank, int timeout_ms, std::vector<int> names)
      : Transport(rank, memory->size(), timeout_ms),
        memory_(std::move(memory)),
        names_(std::move(names)),
        peers_(*memory_, rank, names_) {
    for (int peer = 0; peer < size(); ++peer) {
      writers_.emplace_back(&memory_->control(rank, peer), memory_->ring(rank, peer), memory_->ring_bytes());
      readers_.emplace_back(&memory_->control(peer, rank), memory_->ring(peer, rank), memory_->ring_bytes());
    }
    stalled_out_.resize(writers_.size());
    stalled_in_.resize(readers_.size());
    peers_.announce();
  }
  ~SharedTransport() override {
    slot().state.store(RankState::left);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) memory_->ring_doorbell(peer);
    }
  }

  void abort(const std::string& reason) override {
    memory_->break_world(fmt::format("rank {}: {}", name(rank()), reason));
  }
  Result<void> begin(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) override;
  Result<Moved> move() override;
  Result<bool> has_byte(int peer) override;
  Result<void> rest(int peer, Nanoseconds until) override;
  Result<void> look() override { return look(monotonic_now()); }
  std::string missing() const override;
  Error break_world(Error error) override;

 private:
  RankSlot& slot() const { return memory_->slot(rank()); }
  int name(int peer) const { return names_[static_cast<std::size_t>(peer)]; }

  Moved move_parts();
  bool send(const Outgoing& piece, std::size_t* sent);
  bool receive(const Incoming& piece, std::size_t* received);
  Result<void> look(Nanoseconds now);
  void wake_up();
  void sleep(Nanoseconds now, Nanoseconds until);
  Error broken() const { return fail(ErrorCode::unavailable, "the world is broken: {}", memory_->reason()); }
  void wake(int peer) {
    if (memory_->slot(peer).asleep.load() != 0) memory_->ring_doorbell(peer);
  }
  int find_lost() const;
  bool corrupt(int peer) const {
    return writers_[static_cast<std::size_t>(peer)].corrupt() || readers_[static_cast<std::size_t>(peer)].corrupt();
  }
  bool lost(int peer) const { return peers_.left(peer) || corrupt(peer); }
  Error loss_of(int peer) {
    return break_world(fail(ErrorCode::unavailable, "rank {} {} while rank {} needs it", name(peer),
                            corrupt(peer) ? "wrote an index outside its ring" : "has left", name(rank())));
  }

  std::shared_ptr<SharedMemory> memory_;
  std::vector<int> names_;  // by rank
  SharedMemoryPeers peers_;
  Nanoseconds next_watch_ = 0;
  bool all_joined_ = false;
  // By rank; the own is not used.
  std::vector<RingWriter> writers_;
  std::vector<RingReader> readers_;
  // The exchange in progress, and by piece the bytes moved so far (kept for their capacity).
  std::span<const Outgoing> outgoing_;
  std::span<const Incoming> incoming_;
  std::vector<std::size_t> sent_;
  std::vector<std::size_t> received_;
  int lost_ = -1;  // a rank that was lost before the last look at its ring
  // By rank: the pass in which a piece of it did not end, so that its later ones have to wait.
  std::vector<std::uint64_t> stalled_out_;
  std::vector<std::uint64_t> stalled_in_;
  std::uint64_t pass_ = 0;
  // Resting.
  Nanoseconds still_since_ = 0;  // nothing has moved since; 0: something has
  bool armed_ = false;           // said to be asleep: what is there now must be looked at once more before sleeping
  std::uint32_t doorbell_ = 0;
};

Result<void> SharedTransport::begin(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) {
  if (memory_->broken() != Broken::no) return broken();
  wake_up();
  outgoing_ = outgoing;
  incoming_ = incoming;
  sent_.assign(outgoing.size(), 0);
  received_.assign(incoming.size(), 0);
  lost_ = -1;
  return {};
}

Result<Transport::Moved> SharedTransport::move() {
  if (!all_joined_) {
    if (!peers_.admit()) return Moved::nothing;
    all_joined_ = true;
  }
  const Moved moved = move_parts();
  if (moved != Moved::nothing) {
    wake_up();
    lost_ = -1;
    return moved;
  }
  // Seen to have left before this pass, which found nothing more of it.
  if (lost_ >= 0) return loss_of(lost_);
  lost_ = find_lost();
  return lost_ >= 0 ? Moved::something : Moved::nothing;
}

// One part of every piece whose turn it is.
Transport::Moved SharedTransport::move_parts() {
  ++pass_;
  bool any = false, all = true;
  for (std::size_t i = 0; i < std::max(outgoing_.size(), incoming_.size()); ++i) {
    if (i < outgoing_.size() && sent_[i] < outgoing_[i].bytes.size()) {
      any = send(outgoing_[i], &sent_[i]) || any;
      all = all && sent_[i] == outgoing_[i].bytes.size();
    }
    if (i < incoming_.size() && received_[i] < incoming_[i].bytes.size()) {
      any = receive(incoming_[i], &received_[i]) || any;
      all = all && received_[i] == incoming_[i].bytes.size();
    }
  }
  return all ? Moved::all : any ? Moved::something : Moved::nothing;
}

bool SharedTransport::send(const Outgoing& piece, std::size_t* sent) {
  const auto peer = static_cast<std::size_t>(piece.peer);
  CHECK(peer < writers_.size() && piece.peer != rank(), "rank {} of {} sends to {}", rank(), size(), piece.peer);
  if (stalled_out_[peer] == pass_) return false;
  const std::size_t count =
      writers_[peer].write(piece.bytes.subspan(*sent, std::min(part_bytes, piece.bytes.size() - *sent)));
  *sent += count;
  if (*sent < piece.bytes.size()) stalled_out_[peer] = pass_;
  if (count > 0) wake(piece.peer);
  return count > 0;
}

bool SharedTransport::receive(const Incoming& piece, std::size_t* received) {
  const auto peer = static_cast<std::size_t>(piece.peer);
  CHECK(peer < readers_.size() && piece.peer != rank(), "rank {} of {} receives from {}", rank(), size(), piece.peer);
  if (stalled_in_[peer] == pass_) return false;
  const std::size_t count =
      readers_[peer].read(piece.bytes.subspan(*received, std::min(part_bytes, piece.bytes.size() - *received)));
  *received += count;
  if (*received < piece.bytes.size()) stalled_in_[peer] = pass_;
  if (count > 0) wake(piece.peer);
  return count > 0;
}

// Spins a little where there is a core for every rank, then says that it sleeps, and sleeps.
Result<void> SharedTransport::rest(int, Nanoseconds until) {
  const Nanoseconds now = monotonic_now();
  if (auto whole = look(now); !whole.ok()) {
    wake_up();
    return whole;
  }
  if (still_since_ == 0) still_since_ = now;
  if (!armed_ && peers_.core_for_each() && now - still_since_ < spin_ns) {
    relax();
  } else if (!armed_) {
    armed_ = true;
    doorbell_ = slot().doorbell.load();
    slot().asleep.store(1);
  } else {
    sleep(now, until);
    slot().asleep.store(0);
    armed_ = false;
  }
  return {};
}

void SharedTransport::wake_up() {
  if (armed_) slot().asleep.store(0);
  armed_ = false;
  still_since_ = 0;
}

void SharedTransport::sleep(Nanoseconds now, Nanoseconds until) {
  const Nanoseconds slice = std::min(watch_interval_ns, until - now);
  if (slice <= 0) return;
  const timespec timeout{.tv_sec = slice / 1'000'000'000, .tv_nsec = slice % 1'000'000'000};
  // Returns at once when the doorbell has moved on; and for any reason at all, since the caller looks again.
  ::syscall(SYS_futex, &slot().doorbell, FUTEX_WAIT, doorbell_, &timeout, nullptr, 0);
}

Result<void> SharedTransport::look(Nanoseconds now) {
  if (memory_->broken() != Broken::no) return broken();
  if (now < next_watch_) return {};
  next_watch_ = now + watch_interval_ns;
  if (!all_joined_) peers_.admit();
  if (const auto dead = peers_.find_dead()) return break_world(fail(ErrorCode::unavailable, "{}", *dead));
  return {};
}

Result<bool> SharedTransport::has_byte(int peer) {
  const auto index = static_cast<std::size_t>(peer);
  CHECK(index < readers_.size() && peer != rank(), "rank {} of {} waits for {}", rank(), size(), peer);
  if (memory_->broken() != Broken::no) return broken();
  const bool left = peers_.left(peer);
  const bool there = readers_[index].available(1) > 0;
  if (there || left || corrupt(peer)) wake_up();
  if (!there && (left || corrupt(peer))) return loss_of(peer);
  return there;
}

Error SharedTransport::break_world(Error error) {
  if (memory_->break_world(error.message)) return error;
  return broken();
}

// A peer with which a piece is not done and never will be, since it has left or its indices are wrong. -1: none.
int SharedTransport::find_lost() const {
  for (std::size_t i = 0; i < outgoing_.size(); ++i) {
    if (sent_[i] < outgoing_[i].bytes.size() && lost(outgoing_[i].peer)) return outgoing_[i].peer;
  }
  for (std::size_t i = 0; i < incoming_.size(); ++i) {
    if (received_[i] < incoming_[i].bytes.size() && lost(incoming_[i].peer)) return incoming_[i].peer;
  }
  return -1;
}

// Whose bytes, or whose room for ours.
std::string SharedTransport::missing() const {
  std::vector<int> ranks;
  for (const int peer : peers_.absent()) ranks.push_back(name(peer));
  if (!all_joined_) return name_ranks(ranks) + " to join";
  for (std::size_t i = 0; i < outgoing_.size(); ++i) {
    if (sent_[i] < outgoing_[i].bytes.size()) ranks.push_back(name(outgoing_[i].peer));
  }
  for (std::size_t i = 0; i < incoming_.size(); ++i) {
    if (received_[i] < incoming_[i].bytes.size()) ranks.push_back(name(incoming_[i].peer));
  }
  return name_ranks(ranks);
}

}  // namespace

Result<std::unique_ptr<Transport>> make_shared_transport(std::shared_ptr<SharedMemory> memory, int rank, int timeout_ms,
                                                         std::vector<int> names) {
  if (rank < 0 || rank >= memory->size()) {
    return fail(ErrorCode::invalid_argument, "rank {} of a world of {}", rank, memory->size());
  }
  RankState absent = RankState::absent;
  if (!memory->slot(rank).state.compare_exchange_strong(absent, RankState::joining)) {
    return fail(ErrorCode::invalid_argument, "rank {} has joined its world before: a rank that left needs a new world",
                rank);
  }
  CHECK(names.empty() || names.size() == static_cast<std::size_t>(memory->size()), "{} names for {} ranks",
        names.size(), memory->size());
  for (int own = static_cast<int>(names.size()); own < memory->size(); ++own) names.push_back(own);
  return std::unique_ptr<Transport>(
      std::make_unique<SharedTransport>(std::move(memory), rank, timeout_ms, std::move(names)));
}

}  // namespace chorus
