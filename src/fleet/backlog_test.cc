#include "fleet/backlog.h"

#include <gtest/gtest.h>

#include "testing/request_testing.h"

namespace chorus {
namespace {

Request request_of(std::uint64_t number, std::int32_t priority = 0, std::uint32_t n = 1) {
  Request request;
  request.id = {0, number};
  request.priority = priority;
  request.params.n = n;
  return request;
}

TEST(Backlog, IsFirstComeFirstServedForEachRank) {
  Backlog backlog(false);
  backlog.push(request_of(1, 9), std::nullopt);
  backlog.push(request_of(2, 1), 1);
  backlog.push(request_of(3, 0), std::nullopt);
  EXPECT_FALSE(backlog.take(0).has_value());
  EXPECT_EQ(backlog.take(1)->id, 2_id);
  EXPECT_EQ(backlog.take(std::nullopt)->id, 1_id);
  EXPECT_EQ(backlog.take(std::nullopt)->id, 3_id);
  EXPECT_EQ(backlog.size(), 0U);
}

TEST(Backlog, TakesTheLowestPriorityFirstAndEqualsInOrder) {
  Backlog backlog(true);
  backlog.push(request_of(1, 5), std::nullopt);
  backlog.push(request_of(2, 1), std::nullopt);
  backlog.push(request_of(3, 1), std::nullopt);
  EXPECT_EQ(backlog.take(std::nullopt)->id, 2_id);
  EXPECT_EQ(backlog.take(std::nullopt)->id, 3_id);
  EXPECT_EQ(backlog.take(std::nullopt)->id, 1_id);
}

TEST(Backlog, AbortingEveryChoiceEndsTheRequest) {
  Backlog backlog(false);
  backlog.push(request_of(1, 0, 3), std::nullopt);
  EXPECT_TRUE(backlog.abort_choice(1_id, 1));
  EXPECT_TRUE(backlog.abort_choice(1_id, 0));
  EXPECT_TRUE(backlog.contains(1_id));
  EXPECT_TRUE(backlog.abort_choice(1_id, 2));
  EXPECT_FALSE(backlog.contains(1_id));
  EXPECT_FALSE(backlog.abort(1_id));
  EXPECT_FALSE(backlog.take(std::nullopt).has_value());
}

}  // namespace
}  // namespace chorus
