#include "sched/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace chorus {
namespace {

constexpr std::array<std::uint64_t, 2> test_key = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};
using Tokens = std::vector<TokenId>;

Hash128 everything_collides(const std::array<std::uint64_t, 2>&, const Hash128&, std::span<const TokenId>) {
  return {7, 7};
}

// vectors_sip128 of the authors' reference implementation (github.com/veorq/SipHash, vectors.h): key 00..0f, input 00,
// 01, .. of the given length; as two little-endian words.
TEST(SipHash128, MatchesThePublishedVectors) {
  std::array<unsigned char, 64> input;
  std::iota(input.begin(), input.end(), static_cast<unsigned char>(0));
  const auto hash = [&](std::size_t bytes) { return siphash128(test_key, std::span(input).first(bytes)); };
  EXPECT_EQ(hash(0), (Hash128{0xe6a825ba047f81a3ULL, 0x930255c71472f66dULL}));
  EXPECT_EQ(hash(1), (Hash128{0x44af996bd8c187daULL, 0x45fc229b11597634ULL}));
  EXPECT_EQ(hash(2), (Hash128{0xc75da4a48d227781ULL, 0xe4ff0af6de8ba3fcULL}));
  EXPECT_EQ(hash(63), (Hash128{0x4a83502f77d15051ULL, 0x7cbd3f979a063e50ULL}));
}

TEST(PrefixHash, IsTheHashOfTheBytes) {
  const Hash128 parent = {1, 2};
  for (const Tokens& tokens : {Tokens{3, -4, 5, 6}, Tokens{3, -4, 5}}) {
    std::vector<unsigned char> bytes(16 + 4 * tokens.size());
    std::memcpy(bytes.data(), &parent, 16);
    std::memcpy(bytes.data() + 16, tokens.data(), 4 * tokens.size());
    EXPECT_EQ(prefix_hash(test_key, parent, tokens), siphash128(test_key, bytes));
  }
  EXPECT_NE(prefix_hash(test_key, parent, Tokens{1, 2}), prefix_hash({0, 1}, parent, Tokens{1, 2})) << "the key counts";
}

class PrefixCacheTest : public testing::TestWithParam<PrefixHash> {
 protected:
  PrefixCache cache_{8, 2, test_key, GetParam()};
  PrefixLink root_;
};

TEST_P(PrefixCacheTest, FindsABlockOnlyAfterItsOwnPrefix) {
  PrefixLink a, b, ab, link;
  EXPECT_EQ(cache_.insert(root_, Tokens{1, 2}, 0, &a), 0);
  EXPECT_EQ(cache_.insert(root_, Tokens{3, 4}, 1, &b), 1);
  EXPECT_EQ(cache_.insert(a, Tokens{5, 6}, 2, &ab), 2);
  EXPECT_EQ(cache_.find(root_, Tokens{1, 2}, &link), 0);
  EXPECT_EQ(cache_.find(a, Tokens{5, 6}, &link), 2);
  EXPECT_EQ(cache_.find(b, Tokens{5, 6}, &link), std::nullopt) << "same tokens after another prefix";
  EXPECT_EQ(cache_.find(root_, Tokens{5, 6}, &link), std::nullopt);
  EXPECT_EQ(cache_.find(root_, Tokens{1, 3}, &link), std::nullopt);
}

TEST_P(PrefixCacheTest, KeepsTheFirstOfTwoEqualBlocks) {
  PrefixLink first, second, after, link;
  EXPECT_EQ(cache_.insert(root_, Tokens{1, 2}, 0, &first), 0);
  EXPECT_EQ(cache_.insert(root_, Tokens{1, 2}, 1, &second), 0);
  EXPECT_FALSE(cache_.contains(1));
  EXPECT_EQ(cache_.insert(second, Tokens{3, 4}, 2, &after), 2);
  EXPECT_EQ(cache_.find(first, Tokens{3, 4}, &link), 2) << "both chains go on from the same place";
}

TEST_P(PrefixCacheTest, ABlockWhoseParentWasReplacedIsNotFoundAgain) {
  PrefixLink parent, child, again, link;
  cache_.insert(root_, Tokens{1, 2}, 0, &parent);
  cache_.insert(parent, Tokens{3, 4}, 1, &child);
  cache_.erase(0);
  EXPECT_EQ(cache_.find(root_, Tokens{1, 2}, &link), std::nullopt);
  cache_.insert(root_, Tokens{9, 9}, 0, &again);
  EXPECT_EQ(cache_.find(again, Tokens{3, 4}, &link), std::nullopt) << "block 0 is another parent now";
}

TEST_P(PrefixCacheTest, ClearedItHasNothingAndTakesEverythingAnew) {
  PrefixLink parent, child, link;
  cache_.insert(root_, Tokens{1, 2}, 0, &parent);
  cache_.insert(parent, Tokens{3, 4}, 1, &child);
  cache_.clear();
  EXPECT_EQ(cache_.size(), 0);
  EXPECT_EQ(cache_.find(root_, Tokens{1, 2}, &link), std::nullopt);
  EXPECT_EQ(cache_.insert(root_, Tokens{1, 2}, 1, &link), 1);
  EXPECT_EQ(cache_.find(root_, Tokens{1, 2}, &link), 1);
  EXPECT_EQ(cache_.find(parent, Tokens{3, 4}, &link), std::nullopt);
}

TEST_P(PrefixCacheTest, ChainsOfDifferentSaltsShareNothing) {
  PrefixLink link;
  cache_.insert(root_, Tokens{1, 2}, 0, &link);
  EXPECT_EQ(cache_.find(cache_.root(""), Tokens{1, 2}, &link), 0);
  for (const char* const salt : {"a", "b"})
    EXPECT_EQ(cache_.find(cache_.root(salt), Tokens{1, 2}, &link), std::nullopt);
  EXPECT_EQ(cache_.insert(cache_.root("a"), Tokens{1, 2}, 1, &link), 1);
  EXPECT_EQ(cache_.find(cache_.root("a"), Tokens{1, 2}, &link), 1);
  EXPECT_EQ(cache_.find(cache_.root("b"), Tokens{1, 2}, &link), std::nullopt);
  EXPECT_EQ(cache_.find(root_, Tokens{1, 2}, &link), 0);
}

TEST_P(PrefixCacheTest, AgreesWithANaiveMapUnderRandomInsertsAndErases) {
  std::uint32_t state = 1;
  const auto random = [&](std::uint32_t bound) { return (state = state * 1664525 + 1013904223) / 65536 % bound; };
  std::vector<Tokens> held(8);  // by block; empty: none. Depth one, so that the whole content is the key.
  for (int round = 0; round < 20000; ++round) {
    const auto block = static_cast<BlockId>(random(8));
    const Tokens tokens = {static_cast<TokenId>(random(4)), static_cast<TokenId>(random(4))};
    Tokens& mine = held[static_cast<std::size_t>(block)];
    PrefixLink link;
    if (!mine.empty()) {
      cache_.erase(block);
      mine.clear();
    } else {
      const auto known = std::ranges::find(held, tokens);
      EXPECT_EQ(cache_.insert(root_, tokens, block, &link), known == held.end() ? block : known - held.begin());
      if (known == held.end()) mine = tokens;
    }
    const Tokens asked = {static_cast<TokenId>(random(4)), static_cast<TokenId>(random(4))};
    const auto at = std::ranges::find(held, asked);
    const std::optional<BlockId> found = cache_.find(root_, asked, &link);
    ASSERT_EQ(found.has_value(), at != held.end());
    if (found) {
      ASSERT_EQ(*found, at - held.begin());
    }
    ASSERT_EQ(cache_.size(), std::ranges::count_if(held, [](const Tokens& t) { return !t.empty(); }));
  }
}

INSTANTIATE_TEST_SUITE_P(Hashes, PrefixCacheTest, testing::Values(&prefix_hash, &everything_collides),
                         [](const auto& info) { return info.index == 0 ? "SipHash" : "EverythingCollides"; });

// Goal: a windowed block is found by its entry alone, and goes when either of them goes.
TEST(PrefixCache, KnowsTheCompanionsOfAnEntry) {
  PrefixCache cache(8, 2, test_key, prefix_hash, 2);
  PrefixLink link;
  cache.insert({}, Tokens{1, 2}, 0, &link);
  cache.attach(0, 0, 3);
  cache.attach(0, 1, 4);
  cache.attach(0, 1, 5);  // one is known already
  EXPECT_EQ(cache.companion(0, 0), 3);
  EXPECT_EQ(cache.companion(0, 1), 4);
  EXPECT_TRUE(cache.contains(3) && cache.contains(4));
  EXPECT_FALSE(cache.contains(5));
  cache.erase(3);
  EXPECT_EQ(cache.companion(0, 0), -1);
  EXPECT_EQ(cache.companion(0, 1), 4);
  cache.erase(0);
  EXPECT_FALSE(cache.contains(4)) << "nothing leads to it";
  cache.insert({}, Tokens{1, 2}, 0, &link);
  EXPECT_EQ(cache.companion(0, 1), -1);
  EXPECT_EQ(cache.size(), 1);
}

TEST(PrefixCache, TellsWhatChanges) {
  PrefixCache cache(4, 2, test_key);
  PrefixLink first, second;
  cache.insert({}, Tokens{1, 2}, 0, &first);
  EXPECT_TRUE(cache.take_changes().changes.empty()) << "nobody asks for them";
  cache.keep_changes();
  cache.insert(first, Tokens{3, 4}, 1, &second);
  cache.insert(first, Tokens{3, 4}, 2, &second);  // known: nothing new
  cache.erase(0);
  EXPECT_EQ(cache.take_changes().changes,
            (std::vector<PrefixChange>{{second.hash.low, true}, {first.hash.low, false}}));
  EXPECT_TRUE(cache.take_changes().changes.empty());
  EXPECT_EQ(cache.all(), (PrefixFeed{true, {{second.hash.low, true}}}));
}

}  // namespace
}  // namespace chorus
