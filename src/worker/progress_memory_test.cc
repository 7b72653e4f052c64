#include "worker/progress_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

TEST(ProgressMemory, WhatOneSideShowsTheOtherSees) {
  const auto ours = ProgressMemory::create();
  ASSERT_TRUE(ours.ok()) << ours.error().message;
  EXPECT_EQ(ours->progress().sample().moves, 0U);
  const auto theirs = ProgressMemory::open(UniqueFd(::fcntl(ours->fd(), F_DUPFD_CLOEXEC, 0)));
  ASSERT_TRUE(theirs.ok()) << theirs.error().message;
  theirs->progress().set_busy(true);
  theirs->progress().expect_step(77);
  theirs->progress().moved();
  theirs->progress().moved();
  const ProgressSample seen = ours->progress().sample();
  EXPECT_TRUE(seen.busy);
  EXPECT_EQ(seen.moves, 2U);
  EXPECT_EQ(seen.expected_step_time, 77);
}

TEST(ProgressMemory, NoneShowsNothingToNobody) {
  const ProgressMemory none;
  none.progress().moved();
  EXPECT_FALSE(none.progress().watched());
  EXPECT_FALSE(none.progress().sample().busy);
}

TEST(ProgressMemory, RefusesAnotherMemory) {
  EXPECT_FALSE(ProgressMemory::open(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))).ok());
}

}  // namespace
}  // namespace chorus
