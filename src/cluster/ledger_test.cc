#include "cluster/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing/request_testing.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Placement first_replica{0, 1};
constexpr Placement second_replica{1, 1};

Request make_request(RequestId id, std::uint32_t n = 1, std::uint32_t max_tokens = 4) {
  Request request;
  request.id = id;
  request.prompt = {10, 11, 12};
  request.params.n = n;
  request.params.max_tokens = max_tokens;
  request.params.seed = 99;
  request.priority = -3;
  return request;
}

TokenEvent token(RequestId request, std::uint32_t choice, std::uint32_t position, TokenId id,
                 FinishReason finish = FinishReason::none) {
  TokenEvent event;
  event.request = request;
  event.choice = choice;
  event.position = position;
  event.token = id;
  event.finish = finish;
  return event;
}

Judgement say(Ledger& ledger, Placement from, TokenEvent event) {
  return ledger.on_event(from, &event);
}

Ledger ledger_with(RequestId id, std::uint32_t n = 1, std::uint32_t max_tokens = 4) {
  Ledger ledger;
  EXPECT_TRUE(ledger.admit(make_request(id, n, max_tokens)).ok());
  ledger.place(id, first_replica);
  return ledger;
}

TEST(Ledger, FollowsARequestToItsEnd) {
  Ledger ledger;
  ASSERT_TRUE(ledger.admit(make_request(7_id)).ok());
  const Request sent = ledger.place(7_id, first_replica);
  EXPECT_EQ(sent.prompt, (std::vector<TokenId>{10, 11, 12}));
  EXPECT_EQ(sent.params.seed, 99u);
  EXPECT_EQ(sent.priority, -3);
  EXPECT_EQ(sent.choices.size(), 1u);
  EXPECT_EQ(ledger.requests_on(0), 1u);

  EXPECT_EQ(say(ledger, first_replica, token(7_id, 0, 0, 50)).verdict, Verdict::accepted);
  const Judgement last = say(ledger, first_replica, token(7_id, 0, 1, 51, FinishReason::stop));
  EXPECT_EQ(last.verdict, Verdict::accepted);
  EXPECT_TRUE(last.choice_finished);
  EXPECT_TRUE(last.request_finished);
  EXPECT_EQ(ledger.requests(), 0u);
  EXPECT_EQ(ledger.requests_on(0), 0u);
  EXPECT_EQ(ledger.sequences_on(0), 0u);
}

TEST(Ledger, ADeathGivesBackPromptAndEmittedTokensInOrderOfAdmission) {
  Ledger ledger;
  for (const RequestId id : {30_id, 10_id, 20_id}) {
    ASSERT_TRUE(ledger.admit(make_request(id, 3)).ok());
    ledger.place(id, id == 10_id ? second_replica : first_replica);
  }
  say(ledger, first_replica, token(20_id, 0, 0, 50));
  say(ledger, first_replica, token(20_id, 0, 1, 51));
  say(ledger, first_replica, token(20_id, 1, 0, 60, FinishReason::stop));
  EXPECT_EQ(ledger.sequences_on(0), 5u);
  EXPECT_THAT(ledger.replica_died(first_replica), ElementsAre(30_id, 20_id));
  EXPECT_EQ(ledger.requests_on(0), 0u);
  EXPECT_EQ(ledger.sequences_on(0), 0u);

  const Request again = ledger.place(20_id, second_replica);
  ASSERT_EQ(again.choices.size(), 2u);
  EXPECT_EQ(again.choices[0].index, 0u);
  EXPECT_THAT(again.choices[0].emitted, ElementsAre(50, 51));
  EXPECT_EQ(again.choices[1].index, 2u);
  EXPECT_TRUE(again.choices[1].emitted.empty());
  EXPECT_EQ(say(ledger, second_replica, token(20_id, 0, 2, 52)).verdict, Verdict::accepted);
  EXPECT_EQ(ledger.deaths_seen(20_id), 1u);
  EXPECT_EQ(ledger.fruitless_deaths(20_id), 0u) << "it had a token since";
  EXPECT_EQ(ledger.fruitless_deaths(30_id), 1u);
  EXPECT_EQ(ledger.deaths_seen(10_id), 0u);
}

TEST(Ledger, DropsTheVoiceOfAnOldEpoch) {
  Ledger ledger = ledger_with(7_id);
  say(ledger, first_replica, token(7_id, 0, 0, 50));
  ledger.replica_died(first_replica);
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 0, 1, 51)).verdict, Verdict::dropped) << "while it waits";
  ledger.place(7_id, {0, 2});
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 0, 1, 51)).verdict, Verdict::dropped) << "on the same rank, reborn";
  EXPECT_EQ(say(ledger, second_replica, token(7_id, 0, 1, 51)).verdict, Verdict::dropped)
      << "from a rank that has never had it";
  EXPECT_EQ(say(ledger, {0, 2}, token(7_id, 0, 1, 51)).verdict, Verdict::accepted);
}

TEST(LedgerDeathTest, NothingIsPlacedOnADeadEpoch) {
  Ledger ledger = ledger_with(7_id);
  ledger.replica_died(first_replica);
  ledger.replica_died({0, 3});
  EXPECT_DEATH(ledger.place(7_id, {0, 3}), "has died");
}

TEST(Ledger, DropsRepetitionsAndCallsGapsAndContradictionsFaulty) {
  Ledger ledger = ledger_with(7_id);
  say(ledger, first_replica, token(7_id, 0, 0, 50));
  say(ledger, first_replica, token(7_id, 0, 1, 51));
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 0, 0, 50)).verdict, Verdict::dropped);
  const auto fault = [&](const TokenEvent& event) {
    const Judgement judgement = say(ledger, first_replica, event);
    EXPECT_EQ(judgement.verdict, Verdict::faulty);
    return judgement.fault;
  };
  EXPECT_EQ(fault(token(7_id, 0, 3, 53)), "rank 0 epoch 1, request 0/7 choice 0: position 3 where 2 was to come");
  EXPECT_THAT(fault(token(7_id, 0, 1, 52)), HasSubstr("position 1 was token 51 and is 52 now"));
  EXPECT_THAT(fault(token(7_id, 0, 1, 51, FinishReason::stop)), HasSubstr("the finish came after its token"));
  EXPECT_THAT(fault(token(7_id, 1, 0, 52)), HasSubstr("no such choice"));
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 0, 2, 52)).verdict, Verdict::accepted) << "a fault changes nothing";
  EXPECT_THAT(fault(token(7_id, 0, 3, 53)), HasSubstr("no finish with the last of 4 tokens"));
}

TEST(Ledger, AFinishedChoiceSaysNothingMore) {
  Ledger ledger = ledger_with(7_id, 2);
  const TokenEvent last = token(7_id, 1, 0, 60, FinishReason::stop);
  EXPECT_EQ(say(ledger, first_replica, last).verdict, Verdict::accepted);
  EXPECT_EQ(say(ledger, first_replica, last).verdict, Verdict::dropped);
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 1, 1, 61)).verdict, Verdict::faulty);
  EXPECT_EQ(ledger.unfinished_choices(7_id), 1u);
}

TEST(Ledger, AnErrorWithoutATokenEndsTheChoice) {
  Ledger ledger = ledger_with(7_id);
  TokenEvent event;
  event.request = 7_id;
  event.finish = FinishReason::error;
  EXPECT_TRUE(ledger.on_event(first_replica, &event).request_finished);
}

TEST(Ledger, AbortsTellWhomToTellAndDropWhatComesLate) {
  Ledger ledger = ledger_with(7_id, 2);
  EXPECT_EQ(ledger.abort_choice(7_id, 1), first_replica);
  EXPECT_EQ(ledger.abort_choice(7_id, 1), std::nullopt);
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 1, 0, 60)).verdict, Verdict::dropped);
  EXPECT_EQ(ledger.sequences_on(0), 1u);
  EXPECT_EQ(ledger.abort(7_id), first_replica);
  EXPECT_EQ(ledger.abort(7_id), std::nullopt);
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 0, 0, 50)).verdict, Verdict::dropped);
  EXPECT_EQ(ledger.requests(), 0u);
  EXPECT_EQ(ledger.requests_on(0), 0u);
  EXPECT_EQ(ledger.sequences_on(0), 0u);
}

TEST(Ledger, AnAbortedRequestThatWaitsIsNotPlacedAgain) {
  Ledger ledger = ledger_with(7_id, 2);
  ledger.replica_died(first_replica);
  EXPECT_EQ(ledger.abort_choice(7_id, 0), std::nullopt);
  EXPECT_EQ(ledger.abort_choice(7_id, 1), std::nullopt);
  EXPECT_EQ(ledger.requests(), 0u);
}

TEST(Ledger, WhatIsWithdrawnGoesOnElsewhereAndItsOldReplicaIsNotHeard) {
  Ledger ledger = ledger_with(7_id, 2);
  say(ledger, first_replica, token(7_id, 0, 0, 50));
  EXPECT_THAT(ledger.requests_at(first_replica), ElementsAre(7_id));
  ledger.withdraw(7_id);
  EXPECT_EQ(ledger.requests_on(0), 0u);
  EXPECT_EQ(ledger.sequences_on(0), 0u);
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 0, 1, 51)).verdict, Verdict::dropped);
  EXPECT_THAT(ledger.place(7_id, second_replica).choices[0].emitted, ElementsAre(50));
  EXPECT_EQ(ledger.deaths_seen(7_id), 0u);
}

TEST(Ledger, PromptLogprobsAreDeliveredOnce) {
  Ledger ledger = ledger_with(7_id);
  TokenEvent first = token(7_id, 0, 0, 50);
  first.prompt_logprobs.resize(2);
  ASSERT_EQ(ledger.on_event(first_replica, &first).verdict, Verdict::accepted);
  EXPECT_EQ(first.prompt_logprobs.size(), 2u);
  ledger.replica_died(first_replica);
  EXPECT_TRUE(ledger.place(7_id, second_replica).skip_prompt_logprobs);
  TokenEvent second = token(7_id, 0, 1, 51);
  second.prompt_logprobs.resize(2);
  ASSERT_EQ(ledger.on_event(second_replica, &second).verdict, Verdict::accepted);
  EXPECT_TRUE(second.prompt_logprobs.empty());
}

TEST(Ledger, PromptLogprobsNotYetDeliveredAreAskedForAgain) {
  Ledger ledger = ledger_with(7_id, 2);
  say(ledger, first_replica, token(7_id, 1, 0, 60));
  ledger.replica_died(first_replica);
  EXPECT_FALSE(ledger.place(7_id, second_replica).skip_prompt_logprobs);
}

TEST(Ledger, ContinuesARequestThatBringsEmittedTokens) {
  Ledger ledger;
  Request request = make_request(7_id, 2);
  request.choices = {{1, {60, 61}}};
  ASSERT_TRUE(ledger.admit(request).ok());
  EXPECT_THAT(ledger.place(7_id, first_replica).choices[0].emitted, ElementsAre(60, 61));
  EXPECT_EQ(say(ledger, first_replica, token(7_id, 1, 2, 62)).verdict, Verdict::accepted);
  EXPECT_TRUE(say(ledger, first_replica, token(7_id, 1, 3, 63, FinishReason::length)).request_finished);
}

TEST(Ledger, RefusesWhatHasNothingToCompute) {
  Ledger ledger;
  EXPECT_EQ(ledger.admit(make_request(1_id, 0)).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(ledger.admit(make_request(1_id, 1, 0)).error().code, ErrorCode::invalid_argument);
  Request complete = make_request(1_id, 1, 2);
  complete.choices = {{0, {5, 6}}};
  EXPECT_EQ(ledger.admit(complete).error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(ledger.admit(make_request(1_id)).ok());
  EXPECT_EQ(ledger.requests(), 1u);
}

}  // namespace
}  // namespace chorus
