#include "sched/kv_pools.h"

#include <gtest/gtest.h>

#include <vector>

namespace chorus {
namespace {

// Goal: the closed forms count right. Method: count block by block.
TEST(KvPools, CountsAsOneByOneCountingDoes) {
  for (const std::int32_t pools : {1, 2, 3, 4}) {
    for (const std::int32_t turn : {1, 2, 5}) {
      const KvPools kv{pools, turn};
      std::vector<std::int64_t> needed(static_cast<std::size_t>(pools)), size(static_cast<std::size_t>(pools));
      for (std::int32_t blocks = 0; blocks < 60; ++blocks) {
        bool fits = true;
        for (std::int32_t pool = 0; pool < pools; ++pool) {
          EXPECT_EQ(kv.needed(blocks, pool), needed[static_cast<std::size_t>(pool)]);
          EXPECT_EQ(kv.size(blocks, pool), size[static_cast<std::size_t>(pool)]);
          fits = fits && needed[static_cast<std::size_t>(pool)] <= kv.size(30, pool);
        }
        EXPECT_EQ(kv.short_of(blocks, 30) < 0, fits) << pools << " pools, turn " << turn << ", blocks " << blocks;
        ++needed[static_cast<std::size_t>(kv.pool_of_index(blocks))];
        ++size[static_cast<std::size_t>(kv.pool_of_block(blocks))];
      }
    }
  }
}

TEST(KvPools, TakesTurns) {
  const KvPools kv{3, 2};
  std::vector<std::int32_t> pools;
  for (std::int32_t index = 0; index < 8; ++index) pools.push_back(kv.pool_of_index(index));
  EXPECT_EQ(pools, (std::vector<std::int32_t>{0, 0, 1, 1, 2, 2, 0, 0}));
}

}  // namespace
}  // namespace chorus
