// What a layer keeps of a sequence.
#pragma once

#include "kernels/attention.h"

namespace chorus {

// Keys and values of `kv_heads` heads of this rank for each position, of which a query sees the last `window` (0: all).
struct KvCacheSpec {
  int kv_heads = 0;
  int head_dim = 0;
  int window = 0;

  KvLayout layout(int block_size, DType dtype) const { return {kv_heads, head_dim, block_size, dtype}; }
  bool operator==(const KvCacheSpec&) const = default;
};

}  // namespace chorus
