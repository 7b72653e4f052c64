#include "cluster/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing/request_testing.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = ReplicaNews::State;

constexpr ClientId client_id = 5;

RequestId id_of(std::uint64_t number) {
  return {client_id, number};
}

TokenEvent token(std::uint64_t number, std::uint32_t position, FinishReason finish = FinishReason::none) {
  TokenEvent event;
  event.request = id_of(number);
  event.position = position;
  event.token = static_cast<TokenId>(100 + position);
  event.finish = finish;
  return event;
}

class DispatcherTest : public ::testing::Test {
 protected:
  DispatcherTest() { config_.client = client_id; }
  void make(std::unique_ptr<LoadBalancer> balancer = make_least_loaded()) {
    dispatcher_.emplace(config_, std::move(balancer));
  }
  void news(State state, Placement replica, bool move = false) {
    ReplicaNews told{replica, state, move};
    told.client = client_id;
    dispatcher_->on_news(told, state == State::died ? "was killed by SIGKILL" : "");
  }
  Result<RequestId> try_submit(std::int32_t priority = 0, std::uint32_t n = 1, std::optional<int> wish = std::nullopt,
                               std::size_t tokens = 3) {
    Request request;
    request.prompt.assign(tokens, 1);
    request.params.n = n;
    request.params.max_tokens = 8;
    request.priority = priority;
    return dispatcher_->submit(std::move(request), wish);
  }
  std::uint64_t submit(std::int32_t priority = 0, std::uint32_t n = 1, std::optional<int> wish = std::nullopt) {
    const auto id = try_submit(priority, n, wish);
    EXPECT_TRUE(id.ok() && id->client == client_id);
    return id->number;
  }
  // "add 7", "abort 7" for each message to this replica since the last call.
  std::vector<std::string> messages(Placement to) {
    static constexpr const char* kind_names[] = {"add", "abort", "abort_choice", "reset"};
    std::vector<std::string> described;
    while (auto message = dispatcher_->take_message(to)) {
      described.push_back(
          fmt::format("{} {}", kind_names[static_cast<std::size_t>(message->kind)], message->id.number));
      last_ = *message;
    }
    return described;
  }
  std::vector<std::string> notes() {
    static constexpr const char* kind_names[] = {"drained", "wants alone", "returned"};
    std::vector<std::string> described;
    for (const ClientNote& note : dispatcher_->take_notes()) {
      described.push_back(fmt::format("{} {}:{}", kind_names[static_cast<std::size_t>(note.kind)], note.replica.rank,
                                      note.replica.epoch));
    }
    return described;
  }
  Verdict say(Placement from, TokenEvent event) { return dispatcher_->on_event(from, std::move(event)).verdict; }
  std::vector<FleetEvent> events() {
    std::vector<FleetEvent> taken;
    dispatcher_->take_events(&taken);
    return taken;
  }

  DispatcherConfig config_;
  std::optional<Dispatcher> dispatcher_;
  ReplicaMessage last_;
};

TEST_F(DispatcherTest, AResetGoesBeforeWhatIsSubmittedLaterAndIsDoneWhenAllThatLiveSaySo) {
  make();
  for (const int rank : {0, 1}) news(State::ready, {rank, 1});
  submit(0, 1, 0);
  EXPECT_EQ(dispatcher_->reset_prefix_caches(), 1U);
  EXPECT_EQ(dispatcher_->reset_prefix_caches(), 2U);
  submit(0, 1, 0);
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1", "reset 2", "add 2"));
  EXPECT_THAT(messages({1, 1}), ElementsAre("reset 2"));
  EXPECT_FALSE(dispatcher_->prefix_caches_are_reset(1));
  dispatcher_->on_prefix_cache_reset({0, 1}, 2);
  EXPECT_FALSE(dispatcher_->prefix_caches_are_reset(1));
  news(State::died, {1, 1});
  EXPECT_TRUE(dispatcher_->prefix_caches_are_reset(2)) << "what died has nothing";
  news(State::ready, {1, 2});
  EXPECT_TRUE(dispatcher_->prefix_caches_are_reset(2)) << "what came since has nothing of before";
  dispatcher_->on_prefix_cache_reset({1, 1}, 3);  // a late word
  EXPECT_EQ(dispatcher_->reset_prefix_caches(), 3U);
  EXPECT_FALSE(dispatcher_->prefix_caches_are_reset(3));
}

TEST_F(DispatcherTest, NumbersRequestsAndKeepsThemForTheFirstReadyReplica) {
  make();
  EXPECT_EQ(submit(), 1u);
  EXPECT_EQ(submit(0, 1, 1), 2u);
  EXPECT_THAT(messages({1, 1}), IsEmpty());
  news(State::ready, {1, 1});
  EXPECT_THAT(messages({1, 1}), ElementsAre("add 1", "add 2"));
}

TEST_F(DispatcherTest, AWishIsGrantedWhileItsReplicaTakesRequests) {
  make();
  news(State::ready, {0, 1});
  news(State::ready, {1, 1});
  for (int i = 0; i < 3; ++i) submit(0, 1, 1);
  submit(0, 1, 2);
  EXPECT_THAT(messages({1, 1}), ElementsAre("add 1", "add 2", "add 3"));
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 4"));
}

TEST_F(DispatcherTest, ADeadReplicasRequestsGoOnElsewhereWithTheirTokens) {
  make();
  news(State::ready, {0, 1});
  news(State::ready, {1, 1});
  submit(0, 1, 0);
  ASSERT_EQ(say({0, 1}, token(1, 0)), Verdict::accepted);
  news(State::died, {0, 1});
  EXPECT_THAT(messages({0, 1}), IsEmpty());
  EXPECT_THAT(messages({1, 1}), ElementsAre("add 1"));
  EXPECT_THAT(last_.request.choices.at(0).emitted, ElementsAre(100));
  EXPECT_EQ(say({0, 1}, token(1, 1)), Verdict::dropped);
  EXPECT_EQ(say({1, 1}, token(1, 1)), Verdict::accepted);
  const auto events = this->events();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].dp_rank, 1);
}

TEST_F(DispatcherTest, SendsAPromptToTheReplicaThatHasItsBeginning) {
  config_.prefix_key = {1, 2};
  config_.block_size = 4;
  make(make_prefix_affinity());
  news(State::ready, {0, 1});
  news(State::ready, {1, 1});
  PrefixFeed feed;
  feed.changes = {{prefix_hash(config_.prefix_key.words(), {}, std::vector<TokenId>(4, 1)).low, true}};
  dispatcher_->on_prefixes({1, 1}, feed);
  dispatcher_->on_prefixes({0, 7}, feed);  // of another epoch: nobody's
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(try_submit(0, 1, std::nullopt, 6).ok());
  EXPECT_THAT(messages({1, 1}), ElementsAre("add 1", "add 2", "add 3"));
  EXPECT_EQ(dispatcher_->counters().prefix_placements, 3U);
  EXPECT_EQ(dispatcher_->counters().prefix_tokens, 12U);
  // Another life of the replica has nothing.
  news(State::died, {1, 1});
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1", "add 2", "add 3"));
  news(State::ready, {1, 2});
  ASSERT_TRUE(try_submit(0, 1, std::nullopt, 6).ok());
  EXPECT_THAT(messages({1, 2}), ElementsAre("add 4")) << "the emptier one";
  EXPECT_EQ(dispatcher_->counters().prefix_placements, 3U);
  EXPECT_EQ(dispatcher_->counters().requests_moved, 3U);
}

class BalancerTest : public DispatcherTest, public ::testing::WithParamInterface<LoadBalancerName> {};

// "At most 2 x max_num_seqs a replica", also where the balancer looks at no load, and with requests of several choices.
TEST_P(BalancerTest, TheWindowHoldsUnderEveryBalancer) {
  config_.limits.sequences_per_replica_max = 4;
  make(make_load_balancer(GetParam()));
  news(State::ready, {0, 1});
  news(State::ready, {1, 1});
  submit(0, 3, 0);
  for (int i = 0; i < 20; ++i) submit(0, i % 5 == 0 ? 2 : 1);
  for (const int rank : {0, 1}) EXPECT_LE(dispatcher_->ledger().sequences_on(rank), 4u);
  // One ends on replica 0: its place is taken there, though it would be the turn of replica 1.
  dispatcher_->abort(id_of(1));
  for (const int rank : {0, 1}) EXPECT_LE(dispatcher_->ledger().sequences_on(rank), 4u);
  EXPECT_GE(dispatcher_->ledger().sequences_on(0), 3u);
}
INSTANTIATE_TEST_SUITE_P(Balancers, BalancerTest, ::testing::ValuesIn(every_load_balancer));

TEST_F(DispatcherTest, ARequestWiderThanTheWindowRunsOnAnEmptyReplica) {
  config_.limits.sequences_per_replica_max = 2;
  make();
  news(State::ready, {0, 1});
  submit();
  submit(0, 3);
  submit();  // does not overtake it
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1"));
  say({0, 1}, token(1, 0, FinishReason::stop));
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 2"));
}

TEST_F(DispatcherTest, RequestsBeyondTheBoundsAreRefusedAndNothingGrows) {
  config_.limits.sequences_per_replica_max = 1;
  config_.limits.requests_waiting_max = 2;
  config_.limits.tokens_waiting_max = 10;
  config_.limits.prompt_tokens_max = 50;
  make();
  news(State::ready, {0, 1});
  EXPECT_EQ(try_submit(0, 1, std::nullopt, 51).error().code, ErrorCode::invalid_argument);
  submit();
  submit();
  const auto long_one = try_submit(0, 1, std::nullopt, 8);
  ASSERT_FALSE(long_one.ok());
  EXPECT_EQ(long_one.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(long_one.error().message, HasSubstr("tokens_waiting_max 10"));
  submit();
  const auto refused = try_submit();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("2 requests wait for a replica, the limit"));
  EXPECT_EQ(dispatcher_->waiting(), 2u);
  EXPECT_EQ(dispatcher_->ledger().requests(), 3u);
  say({0, 1}, token(1, 0, FinishReason::stop));
  EXPECT_EQ(submit(), 4u) << "what was refused has no number";
}

TEST_F(DispatcherTest, AReplicaThatTakesNoMessagesGetsNoMoreRequests) {
  config_.limits.messages_waiting_max = 4;
  config_.limits.sequences_per_replica_max = 8;
  make();
  news(State::ready, {0, 1});
  for (int i = 0; i < 50; ++i) dispatcher_->abort(id_of(submit()));
  EXPECT_LE(messages({0, 1}).size(), 4u + 8u);
}

TEST_F(DispatcherTest, SaysWhenTheCallerIsToTakeEvents) {
  config_.limits.events_waiting_max = 2;
  make();
  news(State::ready, {0, 1});
  submit();
  say({0, 1}, token(1, 0));
  EXPECT_TRUE(dispatcher_->has_room_for_events());
  say({0, 1}, token(1, 1));
  EXPECT_FALSE(dispatcher_->has_room_for_events());
  EXPECT_EQ(events().size(), 2u);
  EXPECT_TRUE(dispatcher_->has_room_for_events());
}

TEST_F(DispatcherTest, PriorityIsTheOrderAlsoAfterADeath) {
  config_.by_priority = true;
  config_.limits.sequences_per_replica_max = 2;
  make();
  submit(5);
  submit(0);
  submit(-1);
  submit(0);
  news(State::ready, {0, 1});
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 3", "add 2"));
  news(State::died, {0, 1});
  submit(-1);
  news(State::ready, {0, 2});
  EXPECT_THAT(messages({0, 2}), ElementsAre("add 3", "add 5"));
}

TEST_F(DispatcherTest, ADrainingReplicaGetsNothingNewAndSaysWhenItIsEmpty) {
  make();
  news(State::ready, {0, 1});
  submit();
  news(State::draining, {0, 1});
  submit();
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1"));
  EXPECT_EQ(say({0, 1}, token(1, 0, FinishReason::stop)), Verdict::accepted);
  EXPECT_THAT(notes(), IsEmpty()) << "no report from after it has come";
  dispatcher_->on_report({0, 1}, {.messages_received = 1});
  EXPECT_THAT(notes(), ElementsAre("drained 0:1"));
  EXPECT_THAT(messages({0, 1}), IsEmpty());
  news(State::ready, {0, 1});
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 2"));
}

TEST_F(DispatcherTest, AReplicaThatDrainsWhenItIsFirstHeardOfGetsNothing) {
  make();
  news(State::draining, {0, 1});
  submit();
  EXPECT_THAT(messages({0, 1}), IsEmpty());
  EXPECT_THAT(notes(), ElementsAre("drained 0:1"));
  news(State::ready, {0, 1});
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1"));
}

TEST_F(DispatcherTest, AReplicaThatIsToldToMoveHandsItsRequestsToOthers) {
  make();
  news(State::ready, {0, 1});
  submit();
  say({0, 1}, token(1, 0));
  messages({0, 1});
  news(State::ready, {1, 1});
  news(State::draining, {0, 1}, true);
  EXPECT_THAT(messages({0, 1}), ElementsAre("abort 1"));
  EXPECT_THAT(messages({1, 1}), ElementsAre("add 1"));
  EXPECT_THAT(last_.request.choices.at(0).emitted, ElementsAre(100));
  EXPECT_EQ(say({0, 1}, token(1, 1)), Verdict::dropped);
  EXPECT_EQ(dispatcher_->ledger().deaths_seen(id_of(1)), 0u);
  dispatcher_->on_report({0, 1}, {.messages_received = 1});
  EXPECT_THAT(notes(), IsEmpty()) << "the abort is on its way";
  dispatcher_->on_report({0, 1}, {.messages_received = 2});
  EXPECT_THAT(notes(), ElementsAre("drained 0:1"));
}

// What it said before the abort reached it would count as said by the request's second stay.
TEST_F(DispatcherTest, AReplicaThatIsReadyAgainIsGivenNothingUntilItIsEmpty) {
  make();
  news(State::ready, {0, 1});
  submit();
  say({0, 1}, token(1, 0));
  messages({0, 1});
  news(State::draining, {0, 1}, true);
  news(State::ready, {0, 1});
  EXPECT_THAT(messages({0, 1}), ElementsAre("abort 1"));
  EXPECT_EQ(say({0, 1}, token(1, 1)), Verdict::dropped);
  dispatcher_->on_report({0, 1}, {.messages_received = 1});
  EXPECT_THAT(messages({0, 1}), IsEmpty());
  // Other front ends' requests may run there all the time.
  dispatcher_->on_report({0, 1}, {.waiting = 1, .running = 8, .messages_received = 2});
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1"));
  EXPECT_EQ(say({0, 1}, token(1, 1)), Verdict::accepted);
}

// Nothing else is going to happen.
TEST_F(DispatcherTest, AReplicaThatIsEmptyWithTheLastMessageTakenGetsWhatWaits) {
  make();
  news(State::ready, {0, 1});
  submit();
  messages({0, 1});
  news(State::draining, {0, 1}, true);
  news(State::ready, {0, 1});
  EXPECT_THAT(messages({0, 1}), ElementsAre("abort 1"));
  dispatcher_->reset_prefix_caches();
  dispatcher_->on_report({0, 1}, {.messages_received = 2});
  EXPECT_THAT(messages({0, 1}), ElementsAre("reset 1", "add 1"));
}

class SuspectTest : public DispatcherTest {
 protected:
  void die_twice_with_two_requests() {
    make();
    news(State::ready, {0, 1});
    submit();
    submit();
    news(State::died, {0, 1});
    news(State::ready, {0, 2});
    EXPECT_THAT(messages({0, 2}), ElementsAre("add 1", "add 2"));
    news(State::died, {0, 2});
    news(State::ready, {0, 3});
    submit();
    EXPECT_THAT(messages({0, 3}), ElementsAre("add 3")) << "the others wait to run alone";
    EXPECT_THAT(notes(), ElementsAre("wants alone 0:0"));
    news(State::draining, {0, 3}, true);
    EXPECT_THAT(messages({0, 3}), ElementsAre("abort 3"));
    dispatcher_->on_report({0, 3}, {.messages_received = 2});
    EXPECT_THAT(notes(), ElementsAre("drained 0:3"));
    news(State::lent, {0, 3});
    EXPECT_THAT(messages({0, 3}), ElementsAre("add 1"));
  }
};

TEST_F(SuspectTest, OneThatEmitsATokenIsClearedAndTheNextOneIsTried) {
  die_twice_with_two_requests();
  EXPECT_EQ(say({0, 3}, token(1, 0)), Verdict::accepted);
  EXPECT_THAT(notes(), ElementsAre("returned 0:3", "wants alone 0:0"));
  EXPECT_THAT(messages({0, 3}), IsEmpty());
  news(State::ready, {0, 3});
  EXPECT_THAT(messages({0, 3}), ElementsAre("add 3"));
}

TEST_F(SuspectTest, OneWhoseReplicaDiesTwiceWhileItIsAloneIsEndedAndNoOther) {
  die_twice_with_two_requests();
  news(State::died, {0, 3});
  EXPECT_TRUE(events().empty()) << "once may be an accident";
  EXPECT_THAT(notes(), ElementsAre("wants alone 0:0"));
  news(State::ready, {0, 4});
  messages({0, 4});
  news(State::draining, {0, 4}, true);
  messages({0, 4});
  dispatcher_->on_report({0, 4}, {.messages_received = 2});
  EXPECT_THAT(notes(), ElementsAre("drained 0:4"));
  news(State::lent, {0, 4});
  EXPECT_THAT(messages({0, 4}), ElementsAre("add 1"));
  news(State::died, {0, 4});
  const auto events = this->events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].event.request, id_of(1));
  EXPECT_EQ(events[0].event.finish, FinishReason::error);
  EXPECT_EQ(events[0].event.error,
            "request 5/1 was in flight when 4 replicas died, one after the other, and alone on the last 2 of them "
            "(worker rank 0 was killed by SIGKILL); it is not tried again");
  EXPECT_TRUE(dispatcher_->ledger().contains(id_of(2)));
  EXPECT_THAT(notes(), ElementsAre("wants alone 0:0"));
}

TEST_F(SuspectTest, AnAbortedSuspectReturnsTheReplica) {
  die_twice_with_two_requests();
  dispatcher_->abort(id_of(1));
  EXPECT_THAT(notes(), ElementsAre("returned 0:3", "wants alone 0:0"));
  dispatcher_->abort(id_of(2));
  news(State::lent, {0, 3});
  EXPECT_THAT(notes(), ElementsAre("returned 0:3")) << "there is nobody left to try";
}

TEST_F(DispatcherTest, ReportsAndEndsMoveTheChoiceOfReplica) {
  make();
  news(State::ready, {0, 1});
  news(State::ready, {1, 1});
  for (int i = 0; i < 3; ++i) submit();
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1", "add 3"));
  EXPECT_THAT(messages({1, 1}), ElementsAre("add 2"));
  say({0, 1}, token(1, 0, FinishReason::stop));
  say({0, 1}, token(3, 0, FinishReason::stop));
  submit();
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 4"));
  EXPECT_EQ(dispatcher_->on_report({0, 1}, {.waiting = 9, .messages_received = 3}).verdict, Verdict::accepted);
  submit();
  EXPECT_THAT(messages({1, 1}), ElementsAre("add 5"));
  EXPECT_EQ(dispatcher_->on_report({0, 1}, {.messages_received = 4}).verdict, Verdict::faulty);
  EXPECT_EQ(dispatcher_->on_report({0, 7}, {.messages_received = 4}).verdict, Verdict::dropped);
}

TEST_F(DispatcherTest, WhatIsAbortedSaysNothingMore) {
  make();
  news(State::ready, {0, 1});
  submit(0, 2);
  say({0, 1}, token(1, 0));
  dispatcher_->abort_choice(id_of(1), 1);
  dispatcher_->abort(id_of(1));
  dispatcher_->abort(id_of(1));
  EXPECT_THAT(messages({0, 1}), ElementsAre("add 1", "abort_choice 1", "abort 1"));
  EXPECT_THAT(events(), IsEmpty());
  EXPECT_EQ(dispatcher_->ledger().requests(), 0u);
  EXPECT_EQ(dispatcher_->load_of(0).waiting + dispatcher_->load_of(0).running, 0u);
}

}  // namespace
}  // namespace chorus
