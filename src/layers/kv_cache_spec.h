// What a layer keeps of a sequence.
#pragma once

#include "kernels/attention.h"

namespace chorus {

// Keys and values of `kv_heads` heads of this rank for each position, of which a query sees the last `window` (0: all);
// or, with state_floats, a state in each block, which is float32 whatever keys and values are stored as.
struct KvCacheSpec {
  int kv_heads = 0;
  int head_dim = 0;
  int window = 0;
  std::int64_t state_floats = 0;

  KvLayout layout(int block_size, KvDType dtype) const { return {kv_heads, head_dim, block_size, dtype}; }
  std::size_t block_bytes(int block_size, KvDType dtype) const {
    constexpr std::size_t line = 64;
    if (state_floats > 0) return (static_cast<std::size_t>(state_floats) * sizeof(float) + line - 1) / line * line;
    return layout(block_size, dtype).block_bytes();
  }
  bool operator==(const KvCacheSpec&) const = default;
};

}  // namespace chorus
