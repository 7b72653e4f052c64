#include "tensor/scratch.h"

#include <algorithm>

namespace chorus {
namespace {

constexpr std::size_t alignment_bytes = 64;
constexpr std::size_t chunk_bytes_min = std::size_t{1} << 20;

}  // namespace

Scratch::Chunk Scratch::make_chunk(std::size_t bytes) const {
  Chunk chunk;
  chunk.bytes = bytes;
  if (source_) {
    chunk.begin = source_(bytes);
    return chunk;
  }
  chunk.memory = std::make_unique_for_overwrite<std::byte[]>(bytes + alignment_bytes);
  const auto address = reinterpret_cast<std::uintptr_t>(chunk.memory.get());
  chunk.begin = chunk.memory.get() + (alignment_bytes - address % alignment_bytes) % alignment_bytes;
  return chunk;
}

void Scratch::reserve(std::size_t bytes) {
  if (chunks_.empty()) chunks_.push_back(make_chunk(bytes));
}

std::byte* Scratch::take(std::size_t bytes) {
  bytes = (bytes + alignment_bytes - 1) / alignment_bytes * alignment_bytes;
  while (chunk_ < chunks_.size() && chunks_[chunk_].bytes - used_ < bytes) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    // Doubling keeps the number of chunks small when the need grows step by step.
    chunks_.push_back(make_chunk(std::max({bytes, chunk_bytes_min, chunks_.empty() ? 0 : 2 * chunks_.back().bytes})));
  }
  std::byte* result = chunks_[chunk_].begin + used_;
  used_ += bytes;
  return result;
}

}  // namespace chorus
