#include "sched/block_manager.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>

namespace chorus {
namespace {

TEST(BlockManager, HandsOutUnknownBlocksFirstThenTheOneUnusedLongest) {
  PrefixCache cache(4, 1, {1, 2});
  BlockManager blocks(4, &cache);
  for (BlockId block = 0; block < 4; ++block) EXPECT_EQ(blocks.allocate(), block);
  PrefixLink link;
  for (BlockId block : {0, 1, 2}) cache.insert({}, std::vector<TokenId>{block}, block, &link);
  for (BlockId block : {2, 0, 3, 1}) blocks.release(block);
  EXPECT_EQ(blocks.free(), 4);
  EXPECT_EQ(blocks.allocate(), 3) << "the one that nobody can find";
  EXPECT_EQ(blocks.allocate(), 2);
  EXPECT_FALSE(cache.contains(2));
  blocks.share(0);
  EXPECT_EQ(blocks.allocate(), 1) << "0 is in use again";
  EXPECT_EQ(blocks.free(), 0);
}

class BlockManagerPools : public testing::TestWithParam<std::int32_t> {};

// Goal: counts, free lists and eviction order hold under any use. Method: a naive model with a deque for each pool,
// 200000 random calls.
TEST_P(BlockManagerPools, AgreesWithANaiveModel) {
  constexpr std::int32_t block_total = 7;
  const std::int32_t pools = GetParam();
  PrefixCache cache(block_total, 1, {1, 2});
  BlockManager blocks(block_total, &cache, {pools, 1});
  std::map<std::int32_t, std::deque<BlockId>> all_free;  // by pool, handed out from the front
  std::map<BlockId, int> users;                          // of blocks in use
  std::map<BlockId, TokenId> known;                      // cache entries
  for (BlockId block = 0; block < block_total; ++block) all_free[block % pools].push_back(block);
  std::uint32_t state = 7;
  const auto random = [&](std::uint32_t bound) { return (state = state * 1664525 + 1013904223) / 65536 % bound; };
  TokenId next_token = 0;
  for (int round = 0; round < 200000; ++round) {
    const auto block = static_cast<BlockId>(random(block_total));
    const std::int32_t pool = block % pools;
    std::deque<BlockId>& free = all_free[pool];
    switch (random(4)) {
      case 0:
        if (free.empty()) break;
        ASSERT_EQ(blocks.allocate(pool), free.front());
        known.erase(free.front());
        users[free.front()] = 1;
        free.pop_front();
        break;
      case 1:
        if (!users.contains(block) && !known.contains(block)) break;
        blocks.share(block);
        ++users[block];
        std::erase(free, block);
        break;
      case 2:
        if (!users.contains(block)) break;
        blocks.release(block);
        if (--users[block] > 0) break;
        users.erase(block);
        known.contains(block) ? free.push_back(block) : free.push_front(block);
        break;
      default:
        if (!users.contains(block) || known.contains(block)) break;
        PrefixLink link;
        ASSERT_EQ(cache.insert({}, std::vector<TokenId>{next_token}, block, &link), block);
        known[block] = next_token++;
    }
    ASSERT_EQ(blocks.free_in(pool), static_cast<std::int32_t>(free.size()));
    std::size_t free_in_all = 0;
    for (const auto& [number, blocks_free] : all_free) free_in_all += blocks_free.size();
    ASSERT_EQ(blocks.free(), static_cast<std::int32_t>(free_in_all));
    ASSERT_EQ(blocks.users(block), users.contains(block) ? users[block] : 0);
    ASSERT_EQ(cache.contains(block), known.contains(block));
  }
}

INSTANTIATE_TEST_SUITE_P(Pools, BlockManagerPools, testing::Values(1, 2, 3, 7));

TEST(BlockManagerDeathTest, RefusesWhatMustNotHappen) {
  BlockManager blocks(1, nullptr);
  EXPECT_DEATH(blocks.release(0), "no user");
  EXPECT_DEATH(blocks.share(0), "nothing to share");
  blocks.allocate();
  EXPECT_DEATH(blocks.allocate(), "all 1 blocks of pool 0 are in use");
  BlockManager pools(3, nullptr, {2, 1});
  EXPECT_EQ(pools.allocate(1), 1);
  EXPECT_DEATH(pools.allocate(1), "all 1 blocks of pool 1 are in use");
}

}  // namespace
}  // namespace chorus
