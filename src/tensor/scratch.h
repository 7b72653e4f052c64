// Memory that operations borrow within one call: bump allocation from buffers that only ever grow, so that a warmed-up
// step allocates nothing. One per device; not for sharing between concurrent operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace chorus {

class Scratch {
 public:
  // Gives memory that lives longer than the scratch; 64-byte aligned.
  using Source = std::function<std::byte*(std::size_t bytes)>;

  Scratch() = default;  // of this process's memory
  explicit Scratch(Source source) : source_(std::move(source)) {}

  // Makes room for `bytes`, before anything is taken.
  void reserve(std::size_t bytes);
  // `bytes` of 64-byte aligned memory, uninitialised, valid until the enclosing Scope ends.
  std::byte* take(std::size_t bytes);
  template <typename T>
  T* take_array(std::int64_t count) {
    return reinterpret_cast<T*>(take(static_cast<std::size_t>(count) * sizeof(T)));
  }

  // Everything taken after the scope's construction is given back at its end. Scopes nest.
  class Scope {
   public:
    explicit Scope(Scratch& scratch) : scratch_(scratch), chunk_(scratch.chunk_), used_(scratch.used_) {}
    ~Scope() {
      scratch_.chunk_ = chunk_;
      scratch_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Scratch& scratch_;
    std::size_t chunk_, used_;
  };

 private:
  struct Chunk {
    std::unique_ptr<std::byte[]> memory;  // null: the source's
    std::byte* begin = nullptr;
    std::size_t bytes = 0;
  };
  Chunk make_chunk(std::size_t bytes) const;

  Source source_;
  std::vector<Chunk> chunks_;
  std::size_t chunk_ = 0;  // the chunk in use
  std::size_t used_ = 0;   // bytes used of it
};

}  // namespace chorus
