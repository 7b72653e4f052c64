#include "kernels/scratch.h"

#include <algorithm>

namespace chorus {
namespace {

constexpr std::size_t alignment_bytes = 64;
constexpr std::size_t chunk_bytes_min = std::size_t{1} << 20;

}  // namespace

std::byte* Scratch::take(std::size_t bytes) {
  bytes = (bytes + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
  while (chunk_ < chunks_.size() && chunks_[chunk_].bytes - used_ < bytes) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    // Doubling keeps the number of chunks small when the need grows step by step.
    const std::size_t total = std::max({bytes, chunk_bytes_min, chunks_.empty() ? 0 : 2 * chunks_.back().bytes});
    Chunk chunk;
    chunk.memory = std::make_unique_for_overwrite<std::byte[]>(total + alignment_bytes);
    const auto address = reinterpret_cast<std::uintptr_t>(chunk.memory.get());
    chunk.begin = chunk.memory.get() + (alignment_bytes - address % alignment_bytes) % alignment_bytes;
    chunk.bytes = total;
    chunks_.push_back(std::move(chunk));
  }
  std::byte* result = chunks_[chunk_].begin + used_;
  used_ += bytes;
  return result;
}

}  // namespace chorus
