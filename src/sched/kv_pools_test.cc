#include "sched/kv_shape.h"

#include <gtest/gtest.h>

#include <algorithm>
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
        EXPECT_EQ(KvShape{kv}.short_of(blocks, 30) < 0, fits)
            << pools << " pools, turn " << turn << ", blocks " << blocks;
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

// Goal: the blocks that a window needs, and the longest sequence. Method: the blocks that are read, kept or written,
// counted for every place where a step may begin.
TEST(KvShape, CountsWhatAWindowNeeds) {
  for (const std::int32_t keys : {1, 2, 4, 5, 9, 30}) {
    for (const std::int32_t rows : {1, 3, 8}) {
      for (const std::int32_t blocks : {1, 2, 5, 20}) {
        const KvShape shape{{}, {2, keys}, 4, rows};
        std::int64_t most = 0;
        for (std::int32_t start = 0; start < 4 * blocks; ++start) {
          const std::int32_t end = std::min(start + rows, 4 * blocks);
          most = std::max<std::int64_t>(most, (end + 3) / 4 - shape.window.first_kept(start, 4));
          EXPECT_LE(shape.window.first_kept(start, 4), std::max(0, start + 1 - keys) / 4);
        }
        const std::int64_t counted = shape.window.blocks_max(blocks, rows, 4);
        EXPECT_GE(counted, most) << keys << " keys, " << rows << " rows, " << blocks << " blocks";
        EXPECT_LE(counted, std::min<std::int64_t>(blocks, most + 1));
        EXPECT_EQ(shape.needed(blocks, 0), blocks + 2 * counted);
        const auto memory = static_cast<std::int32_t>(shape.needed(blocks, 0));
        EXPECT_EQ(shape.longest_sequence(memory), blocks);
        EXPECT_EQ(shape.longest_sequence(memory - 1), blocks - 1);
      }
    }
  }
}

}  // namespace
}  // namespace chorus
