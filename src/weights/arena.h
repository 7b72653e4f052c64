// One block of packed weights, shared by all replicas of a node: a memfd that is filled once, sealed, and handed to the engine
// processes as a file descriptor. Nobody can change it after seal(); it disappears with its last user.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"

namespace chorus {

// Move-only owner of the mapping and the descriptor.
class WeightArena {
 public:
  WeightArena() = default;
  WeightArena(WeightArena&& other) noexcept;
  WeightArena& operator=(WeightArena&& other) noexcept;
  ~WeightArena();

  // A new writable arena of `bytes` (all zero). Fails when memory is short: says what was asked and what is free.
  static Result<WeightArena> create(std::size_t bytes);
  // Maps an arena another process made and sealed, read-only. Takes ownership of `fd`. Refuses one that is not sealed.
  static Result<WeightArena> open(int fd);

  // Remaps read-only and forbids any further change (F_SEAL_WRITE | SHRINK | GROW | SEAL).
  Result<void> seal();
  std::byte* writable_data();            // only before seal()
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  int fd() const { return fd_; }         // stays owned by the arena

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int fd_ = -1;
  bool sealed_ = false;
};

}  // namespace chorus
