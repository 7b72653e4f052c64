#include "worker/memory_events.h"

#include <gtest/gtest.h>

#include "worker/child_process.h"

namespace chorus {
namespace {

TEST(MemoryEvents, ReadsBothVersionsOfCgroups) {
  EXPECT_EQ(read_out_of_memory_kills("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"), 2U);
  EXPECT_EQ(read_out_of_memory_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"), 12U);
  EXPECT_EQ(read_out_of_memory_kills("oom_group_kill 1\n"), std::nullopt);
  EXPECT_EQ(read_out_of_memory_kills("oom_kill x"), std::nullopt);
  EXPECT_EQ(read_out_of_memory_kills(""), std::nullopt);
}

TEST(MemoryEvents, AKillSaysWhereToLook) {
  EXPECT_NE(describe({0, 9, true}).find("memory limit of its cgroup or machine was reached"), std::string::npos);
  EXPECT_NE(describe({0, 9, false}).find("see dmesg and memory.events"), std::string::npos);
  EXPECT_EQ(describe({0, 6, false}), "was killed by SIGABRT");
  EXPECT_EQ(describe({2, 0, false}), "exited with status 2");
}

}  // namespace
}  // namespace chorus
