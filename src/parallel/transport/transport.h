// Bytes between the ranks of one world: what a backend has to give so that a Group (group.h) can do every collective.
//
// Between two ranks messages arrive whole, once, and in the order in which they were sent. A rank is one thread: it
// calls one function at a time. Backends: shared_memory (threads or processes of one node), tcp (between nodes), both
// in one (node_transport.h), and none for a world of one.
//
// Failure. Every call ends by its deadline. When a rank dies, or one of its calls fails, or it calls abort(), the world
// is broken for good: every pending and later call of every rank fails within a second, with the reason of the first.
// Nothing waits by spinning for longer than a few microseconds.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chorus {

class SharedMemory;

class Transport {
 public:
  virtual ~Transport() = default;  // leaves the world: to the others this rank is gone
  int rank() const { return rank_; }
  int size() const { return size_; }

  struct Outgoing {
    int peer;  // another rank
    std::span<const std::byte> bytes;
  };
  struct Incoming {
    int peer;
    std::span<std::byte> bytes;
  };
  // Sends and receives all of these at once, in any order that makes progress, so that ranks which exchange long
  // messages with each other never wait in a circle. The bytes of one direction between two ranks are a stream: an
  // Incoming takes the next bytes.size() of it, and the sender's Outgoing must be as long: a backend may count on it.
  // Several pieces of one peer are taken in their order. May return when what is outgoing is only buffered. Errors:
  // deadline_exceeded (names the peers that are missing), unavailable (the world is broken, and why).
  Result<void> exchange(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming);

  // Waits until a byte of `peer` is there to receive; false: timeout_ms passed first, which breaks nothing. For a rank
  // that is idle: it sleeps. Errors: unavailable.
  Result<bool> wait_for(int peer, int timeout_ms);

  // Breaks the world for every rank, with this reason, unless it is broken already.
  virtual void abort(const std::string& reason) = 0;

  // The steps of exchange() and wait_for(): what a backend implements, and how one thread drives two of them
  // (node_transport.h). None waits but rest(). An error is final: the world is broken.

  // `something`: more may move at once. `nothing`: rest() first.
  enum class Moved { nothing, something, all };
  // Takes an exchange. Its pieces, and the lists of them, stay where they are until move() has given `all`.
  virtual Result<void> begin(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) = 0;
  virtual Result<Moved> move() = 0;
  virtual Result<bool> has_byte(int peer) = 0;
  // Returns when it is worth looking again, at `until` at the latest: to move(), or to has_byte() of `peer` if that is
  // not -1. Spins for a few microseconds in all between two movements, then sleeps.
  virtual Result<void> rest(int peer, Nanoseconds until) = 0;
  // Whether somebody died or broke the world.
  virtual Result<void> look() = 0;
  // Whom the exchange waits for: "ranks 1, 3".
  virtual std::string missing() const = 0;
  // Unless it is broken already. The result is for the caller to return: this error, or the earlier one.
  virtual Error break_world(Error error) = 0;
  int exchange_timeout_ms() const { return exchange_timeout_ms_; }

 protected:
  Transport(int rank, int size, int exchange_timeout_ms)
      : rank_(rank), size_(size), exchange_timeout_ms_(exchange_timeout_ms) {}

 private:
  int rank_;
  int size_;
  int exchange_timeout_ms_;
};

// "rank 2", "ranks 1, 3": each once, ascending.
std::string name_ranks(std::vector<int> ranks);

// The memory of a world on one node, for `size` ranks: an unnamed file (memfd), zeroed, which is handed to every rank
// as a descriptor and disappears with its last user. It is sparse and bounded: see shared_memory.h. At most 1,024
// ranks.
class SharedWorld {
 public:
  static Result<SharedWorld> create(int size);
  // Takes the descriptor of a world that another process created and closes it in the end; refuses what is none, which
  // stays the caller's.
  static Result<SharedWorld> open(int fd);
  SharedWorld(SharedWorld&& other) noexcept;
  SharedWorld& operator=(SharedWorld&& other) noexcept;
  ~SharedWorld();

  int size() const { return size_; }
  int fd() const { return fd_; }  // stays owned; close-on-exec

  // Joins as `rank`, once per rank. The memory lives on in the transport. `timeout_ms`: the deadline of every
  // exchange(). The first exchange waits for the others to join, too. A rank whose process ends counts as dead from
  // then on. `names`: what messages call the ranks, where they are part of a larger world; empty: by their numbers.
  Result<std::unique_ptr<Transport>> join(int rank, int timeout_ms, std::vector<int> names = {}) const;

 private:
  SharedWorld(int fd, int size, std::shared_ptr<SharedMemory> memory)
      : fd_(fd), size_(size), memory_(std::move(memory)) {}
  int fd_ = -1;
  int size_ = 0;
  std::shared_ptr<SharedMemory> memory_;  // mapped once per process: its ranks share it
};

}  // namespace chorus
