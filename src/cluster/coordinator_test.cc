#include "cluster/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr ExitStatus killed_by_9{0, 9};

std::string name_of(ReplicaNews::State state) {
  static constexpr const char* kind_names[] = {"ready", "draining", "lent", "died", "removed"};
  return kind_names[static_cast<std::size_t>(state)];
}

class CoordinatorTest : public ::testing::Test {
 protected:
  CoordinatorTest() {
    config_.supervisor.start_timeout = 1000;
    config_.supervisor.heartbeat_timeout = 1'000'000;
    config_.supervisor.kill_timeout = 100;
    config_.supervisor.backoff_first = 10;
    config_.supervisor.backoff_max = 10;
    config_.supervisor.stable_after = 500;
    config_.supervisor.restarts_max = 2;
    config_.drain_timeout = 300;
  }
  void make(int replicas, ReplicaOrigin origin = ReplicaOrigin::spawned) {
    coordinator_.emplace(config_);
    for (int i = 0; i < replicas; ++i) EXPECT_EQ(coordinator_->add_replica(origin, now_).value(), i);
  }
  void make_ready(int replicas) {
    make(replicas);
    coordinator_->client_joined(7);
    for (int i = 0; i < replicas; ++i) coordinator_->ready({i, 1}, now_);
    output();
  }
  // "ready 0:1", "spawn 0:2 in 3": the news, then the actions.
  std::vector<std::string> output() {
    std::vector<std::string> text;
    for (const ReplicaNews& news : coordinator_->take_news()) {
      text.push_back(fmt::format("{} {}:{}", name_of(news.state), news.replica.rank, news.replica.epoch));
      if (news.state == ReplicaNews::State::lent) text.back() += fmt::format(" to {}", news.client);
      if (news.move) text.back() += " move";
      if (news.number > 0) drainings_[news.replica.rank] = news.number;
      if (news.because_of >= 0) text.back() += fmt::format(" because of {}", news.because_of);
    }
    static constexpr const char* kind_names[] = {"spawn", "kill", "give up", "wave"};
    for (const CoordinatorAction& action : coordinator_->take_actions()) {
      text.push_back(fmt::format("{} {}:{}", kind_names[static_cast<std::size_t>(action.kind)], action.replica.rank,
                                 action.replica.epoch));
      if (action.number > 0) text.back() += fmt::format(" in {}", action.number);
      if (action.because_of >= 0) text.back() += fmt::format(" because of {}", action.because_of);
    }
    return text;
  }
  void note(ClientId client, ClientNote::Kind kind, Placement replica = {}) {
    const std::uint32_t number = kind == ClientNote::Kind::drained ? drainings_[replica.rank] : 0;
    coordinator_->on_note(client, {kind, replica, number}, now_);
  }

  CoordinatorConfig config_;
  std::optional<Coordinator> coordinator_;
  std::map<int, std::uint32_t> drainings_;  // of each replica, the last that was told
  Nanoseconds now_ = 1;
};

TEST_F(CoordinatorTest, AReplicaThatDiesIsToldAndStartedAgain) {
  make(2);
  EXPECT_THAT(output(), ElementsAre("spawn 0:1", "spawn 1:1"));
  coordinator_->ready({1, 1}, 2);
  EXPECT_THAT(output(), ElementsAre("ready 1:1"));
  coordinator_->exited({1, 1}, killed_by_9, 3);
  EXPECT_THAT(output(), ElementsAre("died 1:1"));
  coordinator_->tick(13);
  EXPECT_THAT(output(), ElementsAre("spawn 1:2"));
  coordinator_->ready({1, 1}, 14);  // a late message
  EXPECT_THAT(output(), IsEmpty());
}

TEST_F(CoordinatorTest, AFrontEndThatComesLateGetsWhatThereIs) {
  make_ready(3);
  coordinator_->exited({0, 1}, killed_by_9, 3);
  coordinator_->drain(2, true, 3);
  ReplicaNews draining{{2, 1}, ReplicaNews::State::draining, true};
  draining.number = 1;
  EXPECT_THAT(coordinator_->client_joined(8), ElementsAre(ReplicaNews{{1, 1}, ReplicaNews::State::ready}, draining));
}

TEST_F(CoordinatorTest, IdsOfRemovedReplicasAreNotUsedAgain) {
  make_ready(2);
  ASSERT_TRUE(coordinator_->remove(1, false, 10).ok());
  EXPECT_THAT(output(), ElementsAre("draining 1:1"));
  note(7, ClientNote::Kind::drained, {1, 1});
  EXPECT_THAT(output(), ElementsAre("draining 1:1 move", "died 1:1", "kill 1:1"));
  coordinator_->exited({1, 1}, killed_by_9, 11);
  EXPECT_THAT(output(), ElementsAre("removed 1:1", "give up 1:1"));
  EXPECT_EQ(coordinator_->add_replica(ReplicaOrigin::spawned, 12).value(), 2);
  EXPECT_THAT(output(), ElementsAre("spawn 2:1"));
}

TEST_F(CoordinatorTest, ARemovalWaitsForAllFrontEndsThatAreThereAndNoLongerThanItsDeadline) {
  make_ready(2);
  coordinator_->client_joined(8);
  coordinator_->client_joined(9);
  ASSERT_TRUE(coordinator_->remove(0, false, 10).ok());
  output();
  note(7, ClientNote::Kind::drained, {0, 1});
  coordinator_->client_left(8, 11);
  EXPECT_THAT(output(), IsEmpty());
  EXPECT_EQ(coordinator_->next_deadline(), 310);
  coordinator_->tick(310);
  EXPECT_THAT(output(), ElementsAre("draining 0:1 move", "died 0:1", "kill 0:1"));
}

TEST_F(CoordinatorTest, ADrainEndsWithItsReplicaReadyAgainAndOutlivesADeath) {
  make_ready(1);
  coordinator_->drain(0, false, 5);
  coordinator_->resume(0, now_);
  EXPECT_THAT(output(), ElementsAre("draining 0:1", "ready 0:1"));
  coordinator_->drain(0, true, 6);
  coordinator_->exited({0, 1}, killed_by_9, 7);
  coordinator_->tick(20);
  coordinator_->ready({0, 2}, 21);
  EXPECT_THAT(output(), ElementsAre("draining 0:1 move", "died 0:1", "ready 0:2", "draining 0:2 move", "spawn 0:2"));
}

TEST_F(CoordinatorTest, AnAnswerToAnEarlierDrainingSaysNothingOfThePresentOne) {
  make_ready(2);
  coordinator_->drain(0, false, 5);
  output();
  const ClientNote early{ClientNote::Kind::drained, {0, 1}, drainings_[0]};
  coordinator_->resume(0, now_);
  coordinator_->drain(0, false, 6);
  output();
  coordinator_->on_note(7, early, 7);
  EXPECT_FALSE(coordinator_->is_drained(0));
  note(7, ClientNote::Kind::drained, {0, 1});
  EXPECT_TRUE(coordinator_->is_drained(0));
}

TEST_F(CoordinatorTest, ARestartMovesRequestsAwayAndHasNoBackOff) {
  make_ready(2);
  ASSERT_TRUE(coordinator_->restart(1, 5).ok());
  EXPECT_THAT(output(), ElementsAre("draining 1:1 move", "died 1:1", "kill 1:1"));
  coordinator_->exited({1, 1}, killed_by_9, 6);
  EXPECT_THAT(output(), ElementsAre("spawn 1:2"));
  EXPECT_EQ(coordinator_->restarts(1), 0u);
  coordinator_->ready({1, 2}, 7);
  EXPECT_THAT(output(), ElementsAre("ready 1:2"));
  ASSERT_TRUE(coordinator_->remove(1, false, 8).ok());
  EXPECT_FALSE(coordinator_->restart(1, 9).ok());
}

TEST_F(CoordinatorTest, WhoeverStepsTogetherRestartsTogether) {
  config_.step_together = true;
  make_ready(2);
  ASSERT_TRUE(coordinator_->restart(1, 5).ok());
  EXPECT_THAT(output(), ElementsAre("draining 0:1 move", "draining 1:1 move", "died 0:1", "died 1:1 because of 0",
                                    "kill 0:1", "kill 1:1"));
  for (const int replica : {0, 1}) coordinator_->exited({replica, 1}, killed_by_9, 6);
  EXPECT_THAT(output(), ElementsAre("spawn 0:2 in 2", "spawn 1:2 in 2"));
}

TEST_F(CoordinatorTest, PausedEveryReplicaDrainsAlsoOneThatComesAndResumedThoseThatNobodyElseDrains) {
  make_ready(2);
  coordinator_->drain(0, true, 4);
  coordinator_->pause(false, 5);
  EXPECT_THAT(output(), ElementsAre("draining 0:1 move", "draining 0:1 move", "draining 1:1"));
  ASSERT_EQ(coordinator_->add_replica(ReplicaOrigin::spawned, 6).value(), 2);
  coordinator_->ready({2, 1}, 7);
  EXPECT_THAT(output(), ElementsAre("ready 2:1", "draining 2:1", "spawn 2:1"));
  note(7, ClientNote::Kind::wants_alone);
  EXPECT_THAT(output(), IsEmpty()) << "nothing is lent meanwhile";
  coordinator_->resume(1, now_);
  EXPECT_THAT(output(), IsEmpty());
  coordinator_->resume_all(now_);
  EXPECT_THAT(output(), ElementsAre("ready 1:1", "ready 2:1", "draining 1:1 move"));
  coordinator_->resume(0, now_);
  EXPECT_THAT(output(), ElementsAre("ready 0:1"));
}

// It died with its world, and said so before its process was ended.
TEST_F(CoordinatorTest, AWaveThatADeadReplicaEndedIsNoFault) {
  config_.step_together = true;
  make_ready(2);
  coordinator_->report({0, 1}, true);
  EXPECT_THAT(output(), ElementsAre("wave 0:1 in 1", "wave 1:1 in 1"));
  coordinator_->exited({0, 1}, killed_by_9, 5);
  EXPECT_TRUE(coordinator_->wave_ended({1, 1}, 1));
  coordinator_->report({1, 1}, true);  // it says nothing of the next incarnation
  coordinator_->exited({1, 1}, killed_by_9, 6);
  coordinator_->tick(20);
  for (const int replica : {0, 1}) coordinator_->ready({replica, 2}, 21);
  EXPECT_THAT(output(), ::testing::Not(::testing::Contains(::testing::HasSubstr("wave"))));
}

TEST_F(CoordinatorTest, ASuspectGetsAReplicaAloneOneFrontEndAfterTheOther) {
  make_ready(2);
  coordinator_->client_joined(8);
  note(7, ClientNote::Kind::wants_alone);
  note(8, ClientNote::Kind::wants_alone);
  EXPECT_THAT(output(), ElementsAre("draining 0:1 move"));
  note(8, ClientNote::Kind::drained, {0, 1});
  EXPECT_THAT(output(), IsEmpty());
  note(7, ClientNote::Kind::drained, {0, 1});
  EXPECT_THAT(output(), ElementsAre("lent 0:1 to 7"));
  coordinator_->exited({0, 1}, killed_by_9, 5);  // the suspect was the cause; nothing is to be returned
  note(7, ClientNote::Kind::returned, {0, 1});
  EXPECT_THAT(output(), ElementsAre("died 0:1", "draining 1:1 move"));
  for (const ClientId client : {7u, 8u}) note(client, ClientNote::Kind::drained, {1, 1});
  EXPECT_THAT(output(), ElementsAre("lent 1:1 to 8"));
  note(8, ClientNote::Kind::returned, {1, 1});
  EXPECT_THAT(output(), ElementsAre("ready 1:1"));
}

TEST_F(CoordinatorTest, OfAServerWithSomeOfTheReplicasTheIdsBeginWithItsFirst) {
  config_.first_replica = 2;
  coordinator_.emplace(config_);
  EXPECT_EQ(coordinator_->add_replica(ReplicaOrigin::spawned, now_).value(), 2);
  EXPECT_EQ(coordinator_->state(1), ReplicaState::removed);
  EXPECT_FALSE(coordinator_->is_over(now_));
  EXPECT_THAT(output(), ElementsAre("spawn 2:1"));
  coordinator_->ready({2, 1}, now_);
  EXPECT_THAT(coordinator_->client_joined(7), ElementsAre(ReplicaNews{{2, 1}, ReplicaNews::State::ready}));
  coordinator_->exited({2, 1}, killed_by_9, 5);
  coordinator_->tick(20);
  EXPECT_THAT(output(), ElementsAre("ready 2:1", "died 2:1", "spawn 2:2"));
}

// With a door for each replica nobody is waited for, and lent to, but those who serve it.
TEST_F(CoordinatorTest, AFrontEndHasToDoWithTheReplicasThatItServes) {
  make(2);
  for (int i = 0; i < 2; ++i) coordinator_->ready({i, 1}, now_);
  output();
  EXPECT_THAT(coordinator_->client_joined(7, {0, 1}), ElementsAre(ReplicaNews{{0, 1}, ReplicaNews::State::ready}));
  EXPECT_THAT(coordinator_->client_joined(8, {1, 2}), ElementsAre(ReplicaNews{{1, 1}, ReplicaNews::State::ready}));
  coordinator_->drain(0, true, 4);
  EXPECT_THAT(output(), ElementsAre("draining 0:1 move"));
  note(7, ClientNote::Kind::drained, {0, 1});
  EXPECT_TRUE(coordinator_->is_drained(0)) << "8 has nothing there";
  note(7, ClientNote::Kind::wants_alone);
  EXPECT_THAT(output(), IsEmpty()) << "the only one that it could use is drained";
  note(8, ClientNote::Kind::wants_alone);
  EXPECT_THAT(output(), ElementsAre("draining 1:1 move")) << "who can be served does not wait behind it";
  note(8, ClientNote::Kind::drained, {1, 1});
  EXPECT_THAT(output(), ElementsAre("lent 1:1 to 8"));
}

TEST_F(CoordinatorTest, AFrontEndThatGoesReturnsWhatItWasLent) {
  make_ready(1);
  note(7, ClientNote::Kind::wants_alone);
  note(7, ClientNote::Kind::drained, {0, 1});
  output();
  coordinator_->client_left(7, 5);
  EXPECT_THAT(output(), ElementsAre("ready 0:1"));
}

class WorldTest : public CoordinatorTest {
 protected:
  WorldTest() { config_.step_together = true; }
};

TEST_F(WorldTest, ADeathEndsTheWorldForAllAndTheNextOneIsStartedTogether) {
  make(2);
  EXPECT_THAT(output(), ElementsAre("spawn 0:1 in 1", "spawn 1:1 in 1"));
  for (int i = 0; i < 2; ++i) coordinator_->ready({i, 1}, 2);
  output();
  coordinator_->exited({0, 1}, killed_by_9, 3);
  EXPECT_THAT(output(), ElementsAre("died 0:1", "died 1:1 because of 0", "kill 1:1"));
  coordinator_->exited({1, 1}, killed_by_9, 4);
  coordinator_->tick(20);
  EXPECT_THAT(output(), ElementsAre("spawn 0:2 in 2", "spawn 1:2 in 2"));
}

// Rank 0 dies each time it comes back; rank 1 was well for so long that it has its whole budget.
TEST_F(WorldTest, WhenOneCannotComeBackAllAreGivenUp) {
  make(2);
  now_ = 0;
  const auto life = [&](Epoch epoch, Nanoseconds peace) {
    for (int i = 0; i < 2; ++i) coordinator_->ready({i, epoch}, now_);
    now_ += peace;
    coordinator_->exited({0, epoch}, killed_by_9, now_);
    coordinator_->exited({1, epoch}, killed_by_9, now_);
    output();
    now_ += 10;
    coordinator_->tick(now_);
  };
  life(1, 1);
  life(2, 1);
  EXPECT_FALSE(coordinator_->is_over(now_));
  // Rank 1 alone is READY for long; then rank 0 dies while it starts, for the third time.
  coordinator_->ready({1, 3}, now_);
  now_ += 600;
  output();
  coordinator_->exited({0, 3}, killed_by_9, now_);
  EXPECT_THAT(output(), ElementsAre("died 0:3", "died 1:3 because of 0", "give up 0:3", "kill 1:3"));
  EXPECT_FALSE(coordinator_->is_over(now_));
  coordinator_->exited({1, 3}, killed_by_9, now_);
  EXPECT_THAT(output(), ElementsAre("give up 1:3 because of 0"));
  EXPECT_TRUE(coordinator_->is_over(now_));
}

TEST_F(WorldTest, AWaveBeginsWithWorkAndTheNextOneWithWhatCameTooLate) {
  make_ready(2);
  coordinator_->report({0, 1}, false);
  EXPECT_THAT(output(), IsEmpty());
  coordinator_->report({1, 1}, true);
  EXPECT_THAT(output(), ElementsAre("wave 0:1 in 1", "wave 1:1 in 1"));
  coordinator_->report({1, 1}, true);
  EXPECT_TRUE(coordinator_->wave_ended({1, 1}, 1));
  EXPECT_THAT(output(), IsEmpty());  // what it reported during the wave is done
  coordinator_->report({1, 1}, true);
  EXPECT_THAT(output(), IsEmpty());  // rank 0 is still in the wave
  EXPECT_TRUE(coordinator_->wave_ended({0, 1}, 1));
  EXPECT_THAT(output(), ElementsAre("wave 0:1 in 2", "wave 1:1 in 2"));
  EXPECT_FALSE(coordinator_->wave_ended({0, 1}, 3));
}

TEST_F(WorldTest, KeepsTheSizeWithWhichItStarted) {
  make_ready(2);
  EXPECT_EQ(coordinator_->add_replica(ReplicaOrigin::spawned, 5).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(coordinator_->remove(0, false, 5).error().code, ErrorCode::invalid_argument);
}

TEST_F(WorldTest, IsLentAsAWhole) {
  make_ready(2);
  note(7, ClientNote::Kind::wants_alone);
  EXPECT_THAT(output(), ElementsAre("draining 0:1 move", "draining 1:1 move"));
  for (int i = 0; i < 2; ++i) note(7, ClientNote::Kind::drained, {i, 1});
  EXPECT_THAT(output(), ElementsAre("lent 0:1 to 7"));
  coordinator_->fault({1, 1}, 5);
  EXPECT_THAT(output(), ElementsAre("died 1:1", "died 0:1 because of 1", "kill 1:1", "kill 0:1"));
}

TEST_F(CoordinatorTest, ReplicasThatJoinStartTogetherAndMayComeBack) {
  config_.step_together = true;
  config_.rejoin_timeout = 1000;
  make(2, ReplicaOrigin::joins);
  coordinator_->joined(0, 5);
  coordinator_->left(0);
  coordinator_->joined(1, 6);
  EXPECT_THAT(output(), IsEmpty());
  coordinator_->joined(0, 7);
  EXPECT_THAT(output(), ElementsAre("spawn 0:1 in 1", "spawn 1:1 in 1"));
  coordinator_->exited({0, 1}, killed_by_9, 8);
  coordinator_->exited({1, 1}, killed_by_9, 9);
  EXPECT_THAT(output(),
              ElementsAre("died 0:1", "died 1:1 because of 0", "give up 0:1", "kill 1:1", "give up 1:1 because of 0"));
  EXPECT_TRUE(coordinator_->waits_for_nodes());
  EXPECT_FALSE(coordinator_->is_over(1008));
  EXPECT_TRUE(coordinator_->is_over(1009));
  coordinator_->will_not_return(1);
  EXPECT_TRUE(coordinator_->is_over(10));
}

TEST_F(CoordinatorTest, AConnectedReplicaIsNotStartedAgain) {
  make(1, ReplicaOrigin::connected);
  coordinator_->ready({0, 1}, 2);
  output();
  coordinator_->exited({0, 1}, killed_by_9, 3);
  EXPECT_THAT(output(), ElementsAre("died 0:1", "give up 0:1"));
  EXPECT_TRUE(coordinator_->is_over(3));
}

}  // namespace
}  // namespace chorus
