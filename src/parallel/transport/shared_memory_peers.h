// Who else is in a SharedWorld, and whether they live. Private to this room.
#pragma once

#include <poll.h>

#include <optional>
#include <string>
#include <vector>

#include "parallel/transport/shared_memory.h"

namespace chorus {

// The ranks as one of them sees them. Processes are watched through pidfds; ranks of this process are not: a thread
// cannot die alone.
class SharedMemoryPeers {
 public:
  // `names`: of the ranks, in messages.
  SharedMemoryPeers(const SharedMemory& memory, int self, const std::vector<int>& names);
  ~SharedMemoryPeers();
  SharedMemoryPeers(const SharedMemoryPeers&) = delete;
  SharedMemoryPeers& operator=(const SharedMemoryPeers&) = delete;

  // Announces `self`: its process and the cores that the calling thread may use.
  void announce();
  // Takes note of the ranks that have joined since. True once all have.
  bool admit();
  const std::vector<int>& absent() const { return absent_; }
  // Says what died, of the ranks admitted so far: a process that ended without leaving the world.
  std::optional<std::string> find_dead();
  // Whether there is a core for every rank, so that waiting by spinning takes none from a rank that has work. Known
  // once all have joined; false until then.
  bool core_for_each() const { return core_for_each_; }

  bool joined(int rank) const { return memory_.slot(rank).state.load() >= RankState::joined; }
  bool left(int rank) const { return memory_.slot(rank).state.load() == RankState::left; }

 private:
  void watch(int rank);
  std::string death_of(int rank) const;
  void count_cores();

  const SharedMemory& memory_;
  int self_;
  const std::vector<int>& names_;
  std::vector<int> absent_;
  std::vector<int> gone_;           // their process had ended before it could be watched
  std::vector<pollfd> watched_;     // pidfds
  std::vector<int> watched_ranks_;  // of the same index
  bool core_for_each_ = false;
};

}  // namespace chorus
