// Which pool a KV block belongs to. With context parallelism the keys of a sequence lie on several ranks in turn, and
// each rank has its own blocks: block b is of pool b % pools, and block index i of a sequence is one of pool (i / turn)
// % pools, where a turn is the run of blocks whose tokens lie on one rank. One pool: everything is pool 0.
#pragma once

#include <algorithm>
#include <cstdint>

namespace chorus {

struct KvPools {
  std::int32_t pools = 1;
  std::int32_t turn = 1;  // blocks

  std::int32_t pool_of_block(std::int32_t block) const { return pools == 1 ? 0 : block % pools; }
  std::int32_t pool_of_index(std::int32_t index) const { return pools == 1 ? 0 : index / turn % pools; }

  // Blocks of `pool` among blocks 0..blocks-1.
  std::int32_t size(std::int32_t blocks, std::int32_t pool) const { return (blocks - pool + pools - 1) / pools; }

  // Blocks of `pool` that a sequence of `blocks` blocks has.
  std::int64_t needed(std::int64_t blocks, std::int32_t pool) const {
    const std::int64_t round = std::int64_t{turn} * pools;
    const std::int64_t begun = std::clamp<std::int64_t>(blocks % round - std::int64_t{pool} * turn, 0, turn);
    return blocks / round * turn + begun;
  }
};

}  // namespace chorus
