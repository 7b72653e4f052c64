// What of the KV memory a sequence needs. Its keys lie in blocks of one size, which block tables name: one for the
// layers that see all keys, and `window.tables` for those that have a sliding window. Each table is of about as many
// layers, so that a block serves any of them (exec/kv_layout.h). A windowed table has blocks only for what its queries
// can still see: the others are given back, so that a long sequence costs those layers no more than their window.
#pragma once

#include <algorithm>
#include <cstdint>

#include "sched/kv_pools.h"

namespace chorus {

// tables == 0: every layer sees all keys, or is kept as if it did.
struct KvWindow {
  std::int32_t tables = 0;
  std::int32_t keys = 0;  // that a query sees, itself included

  bool operator==(const KvWindow&) const = default;
  // The first block that rows from `position` on read.
  std::int32_t first_block(std::int32_t position, std::int32_t block_size) const {
    return std::max(0, position + 1 - keys) / block_size;
  }
  // The first block that a sequence keeps which has computed `computed` positions. One more than its next row reads: of
  // another choice of the request, which begins at the end of a block, the first row may read it.
  std::int32_t first_kept(std::int32_t computed, std::int32_t block_size) const {
    return first_block(std::max(0, computed - block_size), block_size);
  }
  // The most that one windowed table holds of a sequence of `blocks` blocks, of which `rows` rows are computed at a
  // time: block_size + keys - 1 + rows positions, which may begin anywhere in a block.
  std::int64_t blocks_max(std::int64_t blocks, std::int32_t rows, std::int32_t block_size) const {
    const std::int64_t positions = std::int64_t{block_size} + keys - 1 + rows;
    return std::min(blocks, (positions + block_size - 2) / block_size + 1);
  }
};

// Several pools and windows exclude each other.
struct KvShape {
  KvPools pools = {};
  KvWindow window = {};
  std::int32_t block_size = 16;
  std::int32_t rows_max = 1;  // of a sequence in a step

  // Blocks of `pool` that a sequence of `blocks` blocks needs at a time, over all tables.
  std::int64_t needed(std::int64_t blocks, std::int32_t pool) const {
    return pools.needed(blocks, pool) + window.tables * window.blocks_max(blocks, rows_max, block_size);
  }
  // A pool of which a sequence of `needed_blocks` needs more than there are among `blocks`; -1: it fits.
  std::int32_t short_of(std::int64_t needed_blocks, std::int32_t blocks) const {
    for (std::int32_t pool = 0; pool < pools.pools; ++pool) {
      if (needed(needed_blocks, pool) > pools.size(blocks, pool)) return pool;
    }
    return -1;
  }
  // Blocks of the longest sequence that fits among `blocks`: with several pools some may be left over.
  std::int64_t longest_sequence(std::int32_t blocks) const {
    std::int32_t fits = 0, too_long = blocks + 1;
    while (too_long - fits > 1) {
      const std::int32_t middle = fits + (too_long - fits) / 2;
      (short_of(middle, blocks) < 0 ? fits : too_long) = middle;
    }
    return fits;
  }
};

}  // namespace chorus
