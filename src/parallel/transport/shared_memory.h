// The memory of a SharedWorld (transport.h) and its layout. Private to this room.
//
//   header        what this is, how many ranks, whether it is broken and why
//   rank slots    one per rank: who joined, and the doorbell on which it sleeps
//   ring controls one per ordered pair of ranks: bytes written and read so far, each on its own cache lines
//   rings         one per ordered pair of ranks, ring_bytes each: a queue of bytes with one writer and one reader
//
// The file is sparse: a page exists once it was touched, so a world takes memory for the pairs of ranks that talk. All
// rings together have at most 64 MiB up to 128 ranks (256 KiB a ring up to 16 ranks, 16 KiB at 64 ranks), and 4 KiB
// each above.
//
// What a peer wrote is never believed: sizes are read once, at open, and held against the size of the file, which is
// sealed; indices are checked at every use (shared_memory_ring.h).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace chorus {

inline constexpr int shared_world_ranks_max = 1024;

enum class RankState : std::uint32_t { absent = 0, joining = 1, joined = 2, left = 3 };

struct RankSlot {
  alignas(128) std::atomic<RankState> state;
  std::atomic<std::uint32_t> process;                // its pid
  std::atomic<std::uint64_t> process_start;          // of /proc/PID/stat: tells a later process with the same pid
  std::array<std::atomic<std::uint64_t>, 16> cores;  // bit mask of the cores it may run on, up to 1024
  // Whoever wrote bytes for this rank, or made room for it, adds one to the doorbell and wakes its sleeper, if it says
  // that it sleeps. The futex is the doorbell.
  alignas(128) std::atomic<std::uint32_t> doorbell;
  std::atomic<std::uint32_t> asleep;
};

struct RingControl {
  alignas(128) std::atomic<std::uint64_t> written;  // bytes ever; stored by the sender
  alignas(128) std::atomic<std::uint64_t> read;     // bytes ever; stored by the receiver
};

enum class Broken : std::uint32_t { no = 0, being_written = 1, yes = 2 };

struct WorldHeader {
  std::uint64_t magic;
  std::uint32_t size;
  std::atomic<Broken> broken;
  std::uint32_t reason_bytes;  // of `reason`; both are constant once broken is `yes`
  std::array<char, 1024> reason;
};

static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free,
              "atomics between processes have no locks");

// A mapped world. All ranks of one process use the same mapping.
class SharedMemory {
 public:
  // Fills the header of the empty file `fd`, sizes and seals it.
  static Result<std::shared_ptr<SharedMemory>> create(int fd, int size);
  static Result<std::shared_ptr<SharedMemory>> open(int fd);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  int size() const { return size_; }
  std::size_t ring_bytes() const { return ring_bytes_; }
  RankSlot& slot(int rank) const { return slots_[rank]; }
  RingControl& control(int from, int to) const { return controls_[pair(from, to)]; }
  std::byte* ring(int from, int to) const { return rings_ + pair(from, to) * ring_bytes_; }

  Broken broken() const { return header().broken.load(); }
  // Breaks the world and wakes everybody; false: it was broken before, and the first reason stays.
  bool break_world(const std::string& reason) const;
  std::string reason() const;
  // Adds to the rank's doorbell and wakes its sleeper.
  void ring_doorbell(int rank) const;

 private:
  SharedMemory() = default;
  Result<void> map(int fd, int size, std::size_t bytes);
  WorldHeader& header() const { return *reinterpret_cast<WorldHeader*>(data_); }
  std::size_t pair(int from, int to) const {
    return static_cast<std::size_t>(from) * static_cast<std::size_t>(size_) + static_cast<std::size_t>(to);
  }

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  int size_ = 0;
  std::size_t ring_bytes_ = 0;
  RankSlot* slots_ = nullptr;
  RingControl* controls_ = nullptr;
  std::byte* rings_ = nullptr;
};

}  // namespace chorus
