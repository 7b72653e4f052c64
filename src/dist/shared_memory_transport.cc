// Transport over a SharedMemory: rings moved in a loop, and waiting.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "dist/shared_memory_peers.h"
#include "dist/shared_memory_ring.h"
#include "dist/shared_memory_transport.h"

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
  SharedTransport(std::shared_ptr<SharedMemory> memory, int rank, int timeout_ms)
      : Transport(rank, memory->size()),
        memory_(std::move(memory)),
        peers_(*memory_, rank),
        timeout_ns_(Nanoseconds{timeout_ms} * 1'000'000) {
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

  Result<void> exchange(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) override;
  Result<bool> wait_for(int peer, int timeout_ms) override;
  void abort(const std::string& reason) override { memory_->break_world(fmt::format("rank {}: {}", rank(), reason)); }

 private:
  enum class Moved { nothing, something, all };
  struct Wait {
    Nanoseconds deadline;
    Nanoseconds since = 0;  // nothing has moved since; 0: not known yet
    bool armed = false;     // said to be asleep: what is there now must be looked at once more before sleeping
    std::uint32_t doorbell = 0;
  };
  RankSlot& slot() const { return memory_->slot(rank()); }
  Wait wait_until(Nanoseconds timeout) const { return {.deadline = monotonic_now() + timeout}; }

  Moved move(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming);
  bool send(const Outgoing& piece, std::size_t* sent);
  bool receive(const Incoming& piece, std::size_t* received);
  Result<void> pause(Wait* wait);
  void resume(Wait* wait);
  void sleep(const Wait& wait, Nanoseconds now);
  Result<void> await_all(Wait* wait);
  Error broken() const {
    return fail(ErrorCode::unavailable, "the world of {} ranks is broken: {}", size(), memory_->reason());
  }
  Error break_with(Error error);
  void wake(int peer) {
    if (memory_->slot(peer).asleep.load() != 0) memory_->ring_doorbell(peer);
  }
  std::string missing(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) const;
  int find_lost(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) const;
  bool corrupt(int peer) const {
    return writers_[static_cast<std::size_t>(peer)].corrupt() || readers_[static_cast<std::size_t>(peer)].corrupt();
  }
  bool lost(int peer) const { return peers_.left(peer) || corrupt(peer); }
  Error loss_of(int peer) {
    return break_with(fail(ErrorCode::unavailable, "rank {} {} while rank {} needs it", peer,
                           corrupt(peer) ? "wrote an index outside its ring" : "has left", rank()));
  }

  std::shared_ptr<SharedMemory> memory_;
  SharedMemoryPeers peers_;
  Nanoseconds timeout_ns_;
  Nanoseconds next_watch_ = 0;
  bool all_joined_ = false;
  // By rank; the own is not used.
  std::vector<RingWriter> writers_;
  std::vector<RingReader> readers_;
  // Kept for their capacity. By piece: bytes moved so far.
  std::vector<std::size_t> sent_;
  std::vector<std::size_t> received_;
  // By rank: the pass in which a piece of it did not end, so that its later ones have to wait.
  std::vector<std::uint64_t> stalled_out_;
  std::vector<std::uint64_t> stalled_in_;
  std::uint64_t pass_ = 0;
};

Result<void> SharedTransport::exchange(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) {
  if (memory_->broken() != Broken::no) return broken();
  Wait wait = wait_until(timeout_ns_);
  if (!all_joined_) CHORUS_TRY_VOID(await_all(&wait));
  sent_.assign(outgoing.size(), 0);
  received_.assign(incoming.size(), 0);
  int lost = -1;
  for (;;) {
    const Moved moved = move(outgoing, incoming);
    if (moved == Moved::all) {
      resume(&wait);
      return {};
    }
    if (moved == Moved::something) {
      resume(&wait);
      lost = -1;
      continue;
    }
    // Seen to have left before this pass, which found nothing more of it.
    if (lost >= 0) return loss_of(lost);
    lost = find_lost(outgoing, incoming);
    if (lost >= 0) continue;
    if (auto paused = pause(&wait); !paused.ok()) {
      if (paused.error().code != ErrorCode::deadline_exceeded) return paused;
      return break_with(fail(ErrorCode::deadline_exceeded, "rank {} waited {} ms for {}", rank(),
                             timeout_ns_ / 1'000'000, missing(outgoing, incoming)));
    }
  }
}

// One part of every piece whose turn it is.
SharedTransport::Moved SharedTransport::move(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) {
  ++pass_;
  bool any = false, all = true;
  for (std::size_t i = 0; i < std::max(outgoing.size(), incoming.size()); ++i) {
    if (i < outgoing.size() && sent_[i] < outgoing[i].bytes.size()) {
      any = send(outgoing[i], &sent_[i]) || any;
      all = all && sent_[i] == outgoing[i].bytes.size();
    }
    if (i < incoming.size() && received_[i] < incoming[i].bytes.size()) {
      any = receive(incoming[i], &received_[i]) || any;
      all = all && received_[i] == incoming[i].bytes.size();
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

Result<void> SharedTransport::await_all(Wait* wait) {
  while (!peers_.admit()) {
    if (auto paused = pause(wait); !paused.ok()) {
      if (paused.error().code != ErrorCode::deadline_exceeded) return paused;
      return break_with(fail(ErrorCode::deadline_exceeded, "rank {} waited {} ms for {} to join", rank(),
                             timeout_ns_ / 1'000'000, peers_.absent_names()));
    }
  }
  resume(wait);
  all_joined_ = true;
  return {};
}

// Called when nothing moved: spins a little where there is a core for every rank, then sleeps. Returns when it is worth
// looking again.
Result<void> SharedTransport::pause(Wait* wait) {
  if (memory_->broken() != Broken::no) {
    resume(wait);
    return broken();
  }
  const Nanoseconds now = monotonic_now();
  if (wait->since == 0) wait->since = now;
  if (now >= next_watch_) {
    next_watch_ = now + watch_interval_ns;
    if (!all_joined_) peers_.admit();
    if (const auto dead = peers_.find_dead()) {
      resume(wait);
      return break_with(fail(ErrorCode::unavailable, "{}", *dead));
    }
  }
  if (now >= wait->deadline) {
    resume(wait);
    return Error{ErrorCode::deadline_exceeded, ""};
  }
  if (!wait->armed && peers_.core_for_each() && now - wait->since < spin_ns) {
    relax();
  } else if (!wait->armed) {
    wait->armed = true;
    wait->doorbell = slot().doorbell.load();
    slot().asleep.store(1);
  } else {
    sleep(*wait, now);
    slot().asleep.store(0);
    wait->armed = false;
  }
  return {};
}

void SharedTransport::resume(Wait* wait) {
  if (wait->armed) slot().asleep.store(0);
  wait->armed = false;
  wait->since = 0;
}

void SharedTransport::sleep(const Wait& wait, Nanoseconds now) {
  const Nanoseconds slice = std::min(watch_interval_ns, wait.deadline - now);
  const timespec timeout{.tv_sec = slice / 1'000'000'000, .tv_nsec = slice % 1'000'000'000};
  // Returns at once when the doorbell has moved on; and for any reason at all, since the caller looks again.
  ::syscall(SYS_futex, &slot().doorbell, FUTEX_WAIT, wait.doorbell, &timeout, nullptr, 0);
}

Result<bool> SharedTransport::wait_for(int peer, int timeout_ms) {
  const auto index = static_cast<std::size_t>(peer);
  CHECK(index < readers_.size() && peer != rank(), "rank {} of {} waits for {}", rank(), size(), peer);
  if (memory_->broken() != Broken::no) return broken();
  Wait wait = wait_until(Nanoseconds{timeout_ms} * 1'000'000);
  for (;;) {
    const bool left = peers_.left(peer);
    if (readers_[index].available(1) > 0) {
      resume(&wait);
      return true;
    }
    if (left || corrupt(peer)) {
      resume(&wait);
      return loss_of(peer);
    }
    if (auto paused = pause(&wait); !paused.ok()) {
      if (paused.error().code == ErrorCode::deadline_exceeded) return false;
      return paused.error();
    }
  }
}

Error SharedTransport::break_with(Error error) {
  if (memory_->break_world(error.message)) return error;
  return broken();
}

// A peer with which a piece is not done and never will be, since it has left or its indices are wrong. -1: none.
int SharedTransport::find_lost(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) const {
  for (std::size_t i = 0; i < outgoing.size(); ++i) {
    if (sent_[i] < outgoing[i].bytes.size() && lost(outgoing[i].peer)) return outgoing[i].peer;
  }
  for (std::size_t i = 0; i < incoming.size(); ++i) {
    if (received_[i] < incoming[i].bytes.size() && lost(incoming[i].peer)) return incoming[i].peer;
  }
  return -1;
}

// "ranks 1, 3": whose bytes, or whose room for ours, are missing.
std::string SharedTransport::missing(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) const {
  std::vector<int> ranks;
  for (std::size_t i = 0; i < outgoing.size(); ++i) {
    if (sent_[i] < outgoing[i].bytes.size()) ranks.push_back(outgoing[i].peer);
  }
  for (std::size_t i = 0; i < incoming.size(); ++i) {
    if (received_[i] < incoming[i].bytes.size()) ranks.push_back(incoming[i].peer);
  }
  std::ranges::sort(ranks);
  ranks.erase(std::ranges::unique(ranks).begin(), ranks.end());
  return name_ranks(ranks);
}

}  // namespace

Result<std::unique_ptr<Transport>> make_shared_transport(std::shared_ptr<SharedMemory> memory, int rank,
                                                         int timeout_ms) {
  if (rank < 0 || rank >= memory->size()) {
    return fail(ErrorCode::invalid_argument, "rank {} of a world of {}", rank, memory->size());
  }
  RankState absent = RankState::absent;
  if (!memory->slot(rank).state.compare_exchange_strong(absent, RankState::joining)) {
    return fail(ErrorCode::invalid_argument, "rank {} has joined its world before: a rank that left needs a new world",
                rank);
  }
  return std::unique_ptr<Transport>(std::make_unique<SharedTransport>(std::move(memory), rank, timeout_ms));
}

}  // namespace chorus
