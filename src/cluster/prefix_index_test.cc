#include "cluster/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace chorus {
namespace {

using testing::ElementsAre;

constexpr PrefixKey key = {3, 4};
constexpr std::size_t block_size = 4;

std::vector<TokenId> tokens(std::size_t count) {
  std::vector<TokenId> ids(count);
  std::iota(ids.begin(), ids.end(), 10);
  return ids;
}

// Of the first blocks of tokens(..), as an engine names them.
PrefixFeed feed_of(std::size_t blocks, bool cached = true) {
  const std::vector<TokenId> ids = tokens(blocks * block_size);
  PrefixFeed feed;
  Hash128 hash;
  for (std::size_t i = 0; i < blocks; ++i) {
    hash = prefix_hash(key.words(), hash, std::span(ids).subspan(i * block_size, block_size));
    feed.changes.push_back({hash.low, cached});
  }
  return feed;
}

TEST(PrefixIndex, KnowsHowMuchEachReplicaHas) {
  PrefixIndex index(key, block_size);
  index.update(0, feed_of(1));
  index.update(2, feed_of(3));
  const std::vector<int> ranks = {0, 1, 2};
  EXPECT_THAT(index.held(tokens(14), ranks), ElementsAre(4, 0, 12));
  EXPECT_THAT(index.held(tokens(12), ranks), ElementsAre(4, 0, 8)) << "the last token is always computed";
  EXPECT_THAT(index.held(tokens(3), ranks), ElementsAre(0, 0, 0));
  std::vector<TokenId> other = tokens(14);
  other[5] = 99;
  EXPECT_THAT(index.held(other, ranks), ElementsAre(4, 0, 4));
}

TEST(PrefixIndex, FollowsWhatIsEvictedAndForgotten) {
  PrefixIndex index(key, block_size);
  const std::vector<int> ranks = {0};
  index.update(0, feed_of(3));
  PrefixFeed second_block_goes;
  second_block_goes.changes = {feed_of(2).changes[1]};
  second_block_goes.changes[0].cached = false;
  index.update(0, second_block_goes);
  EXPECT_THAT(index.held(tokens(14), ranks), ElementsAre(4)) << "what lies behind it cannot be used";
  PrefixFeed whole = feed_of(2);
  whole.whole = true;
  index.update(0, feed_of(3));
  index.update(0, whole);
  EXPECT_THAT(index.held(tokens(14), ranks), ElementsAre(8));
  index.forget(0);
  EXPECT_THAT(index.held(tokens(14), ranks), ElementsAre(0));
}

}  // namespace
}  // namespace chorus
