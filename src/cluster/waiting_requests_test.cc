#include "cluster/waiting_requests.h"

#include <gtest/gtest.h>

#include "testing/request_testing.h"

namespace chorus {
namespace {

RequestId first(const WaitingRequests& waiting, int wish) {
  return waiting.queues().at(wish).begin()->second.request;
}

TEST(WaitingRequests, HasAnOrderForEachWishAndCountsAll) {
  WaitingRequests waiting;
  waiting.push(1_id, {WaitingRequests::any_replica, {0, 1}, 10});
  waiting.push(2_id, {WaitingRequests::any_replica, {-1, 2}, 20});
  waiting.push(3_id, {4, {0, 3}, 30});
  EXPECT_EQ(first(waiting, WaitingRequests::any_replica), 2_id);
  EXPECT_EQ(first(waiting, 4), 3_id);
  EXPECT_EQ(waiting.size(), 3u);
  EXPECT_EQ(waiting.tokens(), 60u);
  waiting.erase({WaitingRequests::any_replica, {-1, 2}, 20});
  waiting.erase({WaitingRequests::any_replica, {-1, 2}, 20});
  waiting.erase({4, {0, 3}, 30});
  EXPECT_EQ(first(waiting, WaitingRequests::any_replica), 1_id);
  EXPECT_FALSE(waiting.queues().contains(4));
  EXPECT_EQ(waiting.size(), 1u);
  EXPECT_EQ(waiting.tokens(), 10u);
}

}  // namespace
}  // namespace chorus
