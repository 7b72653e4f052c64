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

// Goal: counts, free list and eviction order hold under any use. Method: a naive model with a deque, 200000 random
// calls.
TEST(BlockManager, AgreesWithANaiveModel) {
  constexpr std::int32_t kBlocks = 7;
  PrefixCache cache(kBlocks, 1, {1, 2});
  BlockManager blocks(kBlocks, &cache);
  std::deque<BlockId> free;          // handed out from the front
  std::map<BlockId, int> users;      // of blocks in use
  std::map<BlockId, TokenId> known;  // cache entries
  for (BlockId block = 0; block < kBlocks; ++block) free.push_back(block);
  std::uint32_t state = 7;
  const auto random = [&](std::uint32_t bound) { return (state = state * 1664525 + 1013904223) / 65536 % bound; };
  TokenId next_token = 0;
  for (int round = 0; round < 200000; ++round) {
    const auto block = static_cast<BlockId>(random(kBlocks));
    switch (random(4)) {
      case 0:
        if (free.empty()) break;
        ASSERT_EQ(blocks.allocate(), free.front());
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
        ASSERT_TRUE(cache.insert({}, std::vector<TokenId>{next_token}, block, &link));
        known[block] = next_token++;
    }
    ASSERT_EQ(blocks.free(), static_cast<std::int32_t>(free.size()));
    ASSERT_EQ(blocks.users(block), users.contains(block) ? users[block] : 0);
    ASSERT_EQ(cache.contains(block), known.contains(block));
  }
}

TEST(BlockManagerDeathTest, RefusesWhatMustNotHappen) {
  BlockManager blocks(1, nullptr);
  EXPECT_DEATH(blocks.release(0), "no user");
  EXPECT_DEATH(blocks.share(0), "nothing to share");
  blocks.allocate();
  EXPECT_DEATH(blocks.allocate(), "in use");
}

}  // namespace
}  // namespace chorus
