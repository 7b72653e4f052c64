#include "config/node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// A root folder with the kernel files of one test.
class FakeRoot {
 public:
  FakeRoot() {
    std::string pattern = ::testing::TempDir() + "chorus-node-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    write("proc/meminfo", "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:   8000 kB\n");
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  NodeResources detect(std::vector<int> cpus) const { return detect_node(path_, std::move(cpus)); }

 private:
  std::string path_;
};

TEST(DetectNode, ReadsThisMachine) {
  const NodeResources node = detect_node();
  EXPECT_FALSE(node.cpus.empty());
  EXPECT_TRUE(std::is_sorted(node.cpus.begin(), node.cpus.end()));
  EXPECT_GT(node.memory_available_bytes, 0U);
  EXPECT_LE(node.memory_available_bytes, node.memory_total_bytes);
}

TEST(DetectNode, WithoutCgroupTheMachineIsTheLimit) {
  const NodeResources node = FakeRoot().detect({0, 1, 2, 3});
  EXPECT_EQ(node.memory_total_bytes, 16000U * 1024);
  EXPECT_EQ(node.memory_available_bytes, 8000U * 1024);
  EXPECT_EQ(node.cores(), 4);
}

TEST(DetectNode, TheTightestCgroupOnTheWayUpLimits) {
  const FakeRoot root;
  root.write("proc/self/cgroup", "0::/outer/inner\n");
  root.write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  root.write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
  root.write("sys/fs/cgroup/outer/memory.max", "4096000\n");
  root.write("sys/fs/cgroup/outer/memory.current", "3000000\n");
  root.write("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 1000000\n");
  root.write("sys/fs/cgroup/outer/cpu.max", "150000 100000\n");
  const NodeResources node = root.detect({0, 1, 2, 3});
  EXPECT_EQ(node.memory_total_bytes, 4096000U);
  EXPECT_EQ(node.memory_available_bytes, 4096000U - 2000000U);
  EXPECT_EQ(node.cpu_limit, 1.5);
  EXPECT_EQ(node.cores(), 2);
}

TEST(DetectNode, ReadsVersionOneCgroups) {
  const FakeRoot root;
  root.write("proc/self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n");
  root.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2048000\n");
  root.write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "48000\n");
  root.write("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "300000\n");
  root.write("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  const NodeResources node = root.detect({0, 1, 2, 3});
  EXPECT_EQ(node.memory_available_bytes, 2000000U);
  EXPECT_EQ(node.cores(), 3);
}

NodeResources node_of(int cores) {
  NodeResources node;
  for (int cpu = 0; cpu < cores; ++cpu) node.cpus.push_back(cpu);
  node.memory_total_bytes = node.memory_available_bytes = std::uint64_t{64} << 30;
  return node;
}

EngineConfig config_of(int replicas, int threads, const std::string& bind) {
  EngineConfig config;
  config.parallel.data_parallel_size = replicas;
  config.threads = threads;
  config.cpu_threads_bind = bind;
  return config;
}

TEST(ThreadsPerWorker, SharesTheCores) {
  EXPECT_EQ(threads_per_worker(config_of(2, 0, "auto"), node_of(8)), 4);
  EXPECT_EQ(threads_per_worker(config_of(3, 0, "auto"), node_of(8)), 2);
  EXPECT_EQ(threads_per_worker(config_of(9, 0, "auto"), node_of(8)), 1);
  EXPECT_EQ(threads_per_worker(config_of(2, 7, "auto"), node_of(8)), 7);
  EXPECT_EQ(threads_per_worker(config_of(2, 0, "0-2|3-4"), node_of(8)), 2);
}

TEST(CpuSets, AutoGivesDisjointNeighbours) {
  std::vector<std::string> warnings;
  const auto sets = cpu_sets_per_worker(config_of(2, 0, "auto"), node_of(5), &warnings);
  EXPECT_THAT(*sets, ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  EXPECT_THAT(*cpu_sets_per_worker(config_of(8, 0, "auto"), node_of(2), &warnings), SizeIs(8));
  EXPECT_THAT(cpu_sets_per_worker(config_of(8, 0, "auto"), node_of(2), &warnings)->front(), IsEmpty())
      << "too few cores: unpinned";
  EXPECT_THAT(*cpu_sets_per_worker(config_of(2, 0, "none"), node_of(4), &warnings), ElementsAre(IsEmpty(), IsEmpty()));
  EXPECT_THAT(warnings, IsEmpty());
}

TEST(CpuSets, ListsAreCheckedAgainstTheMachine) {
  std::vector<std::string> warnings;
  EXPECT_THAT(*cpu_sets_per_worker(config_of(2, 0, "0-1,3|2"), node_of(4), &warnings),
              ElementsAre(ElementsAre(0), ElementsAre(2)))
      << "one core a thread; threads: the size of the smallest set";
  EXPECT_THAT(warnings, IsEmpty());
  EXPECT_THAT(*cpu_sets_per_worker(config_of(2, 2, "0-1,3|2"), node_of(4), &warnings),
              ElementsAre(ElementsAre(0, 1), ElementsAre(2, 2)));
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("2 threads of worker 1 share 1 cores")));
  warnings.clear();
  EXPECT_THAT(cpu_sets_per_worker(config_of(2, 0, "0-1|2-4"), node_of(4), &warnings).error().message,
              HasSubstr("core 4"));
  EXPECT_THAT(cpu_sets_per_worker(config_of(3, 0, "0|1"), node_of(4), &warnings).error().message,
              HasSubstr("2 core sets for 3 workers"));
  ASSERT_TRUE(cpu_sets_per_worker(config_of(2, 2, "0-1|1"), node_of(4), &warnings).ok());
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("2 threads of worker 1 share 1 cores"), HasSubstr("overlap")));
}

TEST(CpuSets, MalformedListsAreErrors) {
  for (const char* text : {"", "|", "0|", "|0", "a", "0-", "-1", "0--2", "0,,1", "0-1-2", "2-1", "99999999", "0 1"}) {
    EXPECT_FALSE(parse_cpu_sets(text).ok()) << text;
  }
}

TEST(KvCacheBytes, DefaultsToHalfOfWhatIsLeftAndAtMostFourGibibytes) {
  constexpr std::uint64_t gibibyte = std::uint64_t{1} << 30;
  NodeResources node = node_of(4);
  EXPECT_EQ(*kv_cache_bytes_per_worker(config_of(2, 0, "auto"), node, 4 * gibibyte), 4 * gibibyte);
  node.memory_available_bytes = 8 * gibibyte;
  EXPECT_EQ(*kv_cache_bytes_per_worker(config_of(2, 0, "auto"), node, 4 * gibibyte), gibibyte);
  EXPECT_EQ(*kv_cache_bytes_per_worker(config_of(2, 0, "auto"), node, 9 * gibibyte), 0U);
  EngineConfig config = config_of(2, 0, "auto");
  config.kv_cache_bytes = 2 * gibibyte;
  EXPECT_EQ(*kv_cache_bytes_per_worker(config, node, 4 * gibibyte), 2 * gibibyte);
  config.kv_cache_bytes += 1;
  EXPECT_THAT(kv_cache_bytes_per_worker(config, node, 4 * gibibyte).error().message,
              HasSubstr("at most 2147483648 fit"));
}

}  // namespace
}  // namespace chorus
