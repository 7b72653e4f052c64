#include "layers/embedding.h"

#include <gtest/gtest.h>

namespace chorus {
namespace {

TEST(LogitsShare, IsEvenAndCoversEveryRowOnce) {
  for (const int ranks : {1, 2, 4, 8}) {
    for (std::int64_t m = 0; m < 40; ++m) {
      const std::int64_t largest = logits_share(m, 0, ranks).count;
      std::int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const RowShare share = logits_share(m, rank, ranks);
        EXPECT_EQ(share.first, next);
        EXPECT_LE(share.count, largest);
        EXPECT_GE(share.count, largest - 1);
        next += share.count;
      }
      EXPECT_EQ(next, m);
    }
  }
}

}  // namespace
}  // namespace chorus
