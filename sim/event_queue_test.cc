#include "event_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus::sim {
namespace {

TEST(EventQueue, RunsInOrderOfTimeThenOfAddition) {
  EventQueue queue;
  std::vector<int> ran;
  queue.at(20, [&] { ran.push_back(3); });
  queue.at(10, [&] { ran.push_back(1); });
  queue.at(10, [&] {
    ran.push_back(2);
    queue.after(5, [&] { ran.push_back(static_cast<int>(queue.now())); });
  });
  while (!queue.empty()) queue.step();
  EXPECT_THAT(ran, ::testing::ElementsAre(1, 2, 15, 3));
  EXPECT_EQ(queue.now(), 20);
}

}  // namespace
}  // namespace chorus::sim
