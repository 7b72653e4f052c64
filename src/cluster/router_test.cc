#include "cluster/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing/request_testing.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;

Request make_request(RequestId id, std::uint32_t n = 1) {
  Request request;
  request.id = id;
  request.prompt = {1, 2, 3};
  request.params.n = n;
  request.params.max_tokens = 8;
  return request;
}

TokenEvent token(RequestId request, std::uint32_t position, FinishReason finish = FinishReason::none) {
  TokenEvent event;
  event.request = request;
  event.position = position;
  event.token = static_cast<TokenId>(100 + position);
  event.finish = finish;
  return event;
}

class RouterTest : public ::testing::Test {
 protected:
  // "add 7 0:1": kind, request, placement of each message since the last call.
  std::vector<std::string> messages() {
    static constexpr const char* kNames[] = {"add", "abort", "abort_choice"};
    std::vector<std::string> described;
    for (const RouterMessage& message : router_.take_messages()) {
      described.push_back(fmt::format("{} {} {}:{}", kNames[static_cast<std::size_t>(message.kind)], message.id.number,
                                      message.to.rank, message.to.epoch));
      last_ = message;
    }
    return described;
  }
  void submit(RequestId id, std::optional<int> rank = std::nullopt) {
    ASSERT_TRUE(router_.submit(make_request(id), rank).ok());
  }

  Router router_{2, make_least_loaded()};
  RouterMessage last_;
};

TEST_F(RouterTest, RequestsWaitForTheFirstReadyReplicaInOrder) {
  submit(1_id);
  submit(2_id, 1);
  EXPECT_THAT(messages(), ElementsAre());
  router_.replica_ready({1, 1});
  EXPECT_THAT(messages(), ElementsAre("add 1 1:1", "add 2 1:1"));
}

TEST_F(RouterTest, AReadyPinIsHonouredAndADeadOneIsNot) {
  router_.replica_ready({0, 1});
  submit(1_id, 0);
  submit(2_id, 0);
  submit(3_id, 1);
  EXPECT_THAT(messages(), ElementsAre("add 1 0:1", "add 2 0:1", "add 3 0:1"));
}

TEST_F(RouterTest, ADeadReplicasRequestsGoOnElsewhereWithTheirTokens) {
  router_.replica_ready({0, 1});
  router_.replica_ready({1, 1});
  submit(1_id, 0);
  submit(2_id, 1);
  TokenEvent first = token(1_id, 0);
  ASSERT_EQ(router_.on_event({0, 1}, &first).verdict, Verdict::accepted);
  messages();
  router_.replica_died({0, 1});
  EXPECT_THAT(messages(), ElementsAre("add 1 1:1"));
  EXPECT_THAT(last_.request.choices.at(0).emitted, ElementsAre(100));
  TokenEvent late = token(1_id, 1);
  EXPECT_EQ(router_.on_event({0, 1}, &late).verdict, Verdict::dropped);
  EXPECT_EQ(router_.on_event({1, 1}, &late).verdict, Verdict::accepted);
}

TEST(Router, ARequestWithoutATokenOverTheLimitOfDeathsIsEndedAndOthersGoOn) {
  Router router(1, make_least_loaded(), {.fruitless_deaths_max = 2});
  router.replica_ready({0, 1});
  ASSERT_TRUE(router.submit(make_request(1_id), std::nullopt).ok());
  ASSERT_TRUE(router.submit(make_request(2_id, 3), std::nullopt).ok());
  EXPECT_TRUE(router.replica_died({0, 1}).empty());
  router.replica_ready({0, 2});
  TokenEvent first = token(1_id, 0);
  ASSERT_EQ(router.on_event({0, 2}, &first).verdict, Verdict::accepted);
  router.abort_choice(2_id, 1);

  const std::vector<TokenEvent> ends = router.replica_died({0, 2});
  ASSERT_EQ(ends.size(), 2u);
  EXPECT_EQ(ends[0].choice, 0u);
  EXPECT_EQ(ends[1].choice, 2u);
  for (const TokenEvent& end : ends) {
    EXPECT_EQ(end.request, 2_id);
    EXPECT_EQ(end.finish, FinishReason::error);
    EXPECT_EQ(end.error, "request 0/2 was in flight when 2 replicas died, one after the other; it is not tried again");
  }
  EXPECT_FALSE(router.ledger().contains(2_id));
  router.take_messages();
  router.replica_ready({0, 3});
  const auto again = router.take_messages();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].id, 1_id);
}

TEST_F(RouterTest, MessagesToADeadReplicaAreNotSent) {
  router_.replica_ready({0, 1});
  submit(1_id);
  router_.abort(1_id);
  submit(2_id);
  router_.replica_died({0, 1});
  EXPECT_THAT(messages(), ElementsAre());
  router_.replica_ready({0, 2});
  EXPECT_THAT(messages(), ElementsAre("add 2 0:2"));
}

TEST_F(RouterTest, ADrainingReplicaGetsNothingNew) {
  router_.replica_ready({0, 1});
  router_.replica_ready({1, 1});
  router_.set_draining(0, true);
  submit(1_id);
  submit(2_id, 0);
  EXPECT_THAT(messages(), ElementsAre("add 1 1:1", "add 2 1:1"));
  router_.set_draining(1, true);
  submit(3_id);
  EXPECT_THAT(messages(), ElementsAre());
  router_.set_draining(0, false);
  EXPECT_THAT(messages(), ElementsAre("add 3 0:1"));
}

TEST_F(RouterTest, ReportsAndEndsMoveTheChoiceOfReplica) {
  router_.replica_ready({0, 1});
  router_.replica_ready({1, 1});
  submit(1_id);
  submit(2_id);
  submit(3_id);
  EXPECT_THAT(messages(), ElementsAre("add 1 0:1", "add 2 1:1", "add 3 0:1"));
  TokenEvent last = token(1_id, 0, FinishReason::stop);
  EXPECT_TRUE(router_.on_event({0, 1}, &last).request_finished);
  last = token(3_id, 0, FinishReason::stop);
  EXPECT_TRUE(router_.on_event({0, 1}, &last).request_finished);
  submit(4_id, std::nullopt);
  EXPECT_THAT(messages(), ElementsAre("add 4 0:1"));
  EXPECT_EQ(router_.on_report({0, 1}, {.waiting = 9, .submissions_received = 3}).verdict, Verdict::accepted);
  submit(5_id);
  EXPECT_THAT(messages(), ElementsAre("add 5 1:1"));
  EXPECT_EQ(router_.on_report({0, 1}, {.submissions_received = 4}).verdict, Verdict::faulty);
  EXPECT_EQ(router_.on_report({0, 7}, {.submissions_received = 4}).verdict, Verdict::dropped);
}

TEST_F(RouterTest, AbortsAreSentToTheReplica) {
  router_.replica_ready({0, 1});
  ASSERT_TRUE(router_.submit(make_request(1_id, 2), std::nullopt).ok());
  router_.abort_choice(1_id, 1);
  router_.abort(1_id);
  router_.abort(1_id);
  EXPECT_THAT(messages(), ElementsAre("add 1 0:1", "abort_choice 1 0:1", "abort 1 0:1"));
  EXPECT_EQ(router_.ledger().requests(), 0u);
  EXPECT_EQ(router_.loads()[0].waiting + router_.loads()[0].running, 0u);
}

}  // namespace
}  // namespace chorus
