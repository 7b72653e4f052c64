// One block of packed weights, shared by all replicas of a node: a memfd that is filled once, sealed, and handed to the
// engine processes as a file descriptor. Nobody can change it after seal(); it disappears with its last user.
//
// Pages: a new arena asks for transparent huge pages (2 MiB), which the kernel gives where
// /sys/kernel/mm/transparent_hugepage/shmem_enabled says advise or more; elsewhere the pages are 4 KiB. A reader's page
// tables are filled at open(), so that no step pays for page faults.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"

namespace chorus {

// Move-only owner of the mapping and the descriptor. Not synchronised; several threads may write disjoint parts of
// writable_data() and read data().
class WeightArena {
 public:
  WeightArena() = default;
  WeightArena(WeightArena&& other) noexcept;
  WeightArena& operator=(WeightArena&& other) noexcept;
  ~WeightArena();

  // A new writable arena of `bytes` (all zero, page aligned). Fails when memory is short: says what was asked and what
  // is free. `bytes` 0 is refused.
  static Result<WeightArena> create(std::size_t bytes);
  // Maps an arena another process made and sealed, read-only. Takes ownership of `fd`, on failure too. Refuses one that
  // is not sealed, or not a memfd, since another process could then change it or cut it short.
  static Result<WeightArena> open(int fd);

  // Remaps read-only and forbids any further change (F_SEAL_WRITE | SHRINK | GROW | SEAL). No other writable mapping of
  // the descriptor may exist. data() may move.
  Result<void> seal();
  std::byte* writable_data();  // only before seal()
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  int fd() const { return fd_; }  // stays owned by the arena; close-on-exec

 private:
  void release();

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int fd_ = -1;
  bool sealed_ = false;
};

}  // namespace chorus
