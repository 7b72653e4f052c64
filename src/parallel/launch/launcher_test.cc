#include "parallel/launch/launcher.h"

#include <gtest/gtest.h>

#include <map>

namespace chorus {
namespace {

using Variables = std::map<std::string, std::string>;

Result<LauncherEnvironment> detect(const Variables& variables) {
  return detect_launcher([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

Variables torchrun_variables() {
  return {{"RANK", "3"},
          {"WORLD_SIZE", "4"},
          {"LOCAL_RANK", "1"},
          {"LOCAL_WORLD_SIZE", "2"},
          {"MASTER_ADDR", "node0"},
          {"MASTER_PORT", "29500"},
          {"TORCHELASTIC_RUN_ID", "a/b"},
          {"TORCHELASTIC_RESTART_COUNT", "2"},
          {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
}

Variables mpi_variables() {
  return {{"OMPI_COMM_WORLD_RANK", "1"},           {"OMPI_COMM_WORLD_SIZE", "2"},
          {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},     {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
          {"PMIX_NAMESPACE", "prterun-host-12@1"}, {"PMIX_SERVER_TMPDIR", "/tmp/session"}};
}

Variables slurm_variables() {
  return {{"SLURM_PROCID", "5"},  {"SLURM_NTASKS", "6"},
          {"SLURM_LOCALID", "1"}, {"SLURM_JOB_ID", "777"},
          {"SLURM_STEP_ID", "2"}, {"SLURM_STEP_NODELIST", "gpu[03-04,09],login"},
          {"SLURM_NODEID", "2"},  {"SLURM_STEP_TASKS_PER_NODE", "2(x3)"}};
}

TEST(Launcher, NothingSetIsAWorldOfOne) {
  const auto environment = detect({});
  ASSERT_TRUE(environment.ok());
  EXPECT_EQ(environment->launcher, Launcher::none);
  EXPECT_EQ(environment->world_size, 1);
}

TEST(Launcher, TorchrunsOwnStoreIsUsed) {
  auto variables = torchrun_variables();
  const auto environment = detect(variables);
  ASSERT_TRUE(environment.ok()) << environment.error().message;
  EXPECT_EQ(environment->launcher, Launcher::torchrun);
  EXPECT_EQ(environment->rank, 3);
  EXPECT_EQ(environment->world_size, 4);
  EXPECT_EQ(environment->local_rank, 1);
  EXPECT_EQ(environment->local_world_size, 2);
  EXPECT_EQ(environment->store_host, "node0");
  EXPECT_EQ(environment->store_port, 29500);
  EXPECT_EQ(environment->run_id, "a_b-2");
  variables["RANK"] = "0";
  EXPECT_FALSE(detect(variables)->hosts_store());
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  EXPECT_TRUE(detect(variables)->hosts_store());
}

TEST(Launcher, MpirunMeetsInItsSessionDirectory) {
  const auto environment = detect(mpi_variables());
  ASSERT_TRUE(environment.ok()) << environment.error().message;
  EXPECT_EQ(environment->launcher, Launcher::open_mpi);
  EXPECT_EQ(environment->rank, 1);
  EXPECT_EQ(environment->store_file, "/tmp/session/chorus-prterun-host-12_1.store");
  EXPECT_EQ(environment->store_port, 0);
}

TEST(Launcher, MpirunOnSeveralNodesNeedsAnAddress) {
  auto variables = mpi_variables();
  variables["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";
  variables["OMPI_COMM_WORLD_LOCAL_RANK"] = "0";
  const auto refused = detect(variables);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("1 of them on this node"), std::string::npos) << refused.error().message;
  EXPECT_NE(refused.error().message.find("-x MASTER_ADDR=HOST -x MASTER_PORT=PORT"), std::string::npos);
  EXPECT_NE(refused.error().message.find("--cluster-key-file"), std::string::npos);
  variables["MASTER_ADDR"] = "node0";
  variables["MASTER_PORT"] = "1234";
  variables["OMPI_COMM_WORLD_RANK"] = "0";
  const auto environment = detect(variables);
  ASSERT_TRUE(environment.ok()) << environment.error().message;
  EXPECT_TRUE(environment->hosts_store());
  EXPECT_EQ(environment->store_port, 1234);
  EXPECT_EQ(environment->store_file, "");
}

TEST(Launcher, SrunMeetsOnItsFirstHost) {
  auto variables = slurm_variables();
  const auto environment = detect(variables);
  ASSERT_TRUE(environment.ok()) << environment.error().message;
  EXPECT_EQ(environment->launcher, Launcher::slurm);
  EXPECT_EQ(environment->rank, 5);
  EXPECT_EQ(environment->local_world_size, 2);
  EXPECT_EQ(environment->store_host, "gpu03");
  EXPECT_GE(environment->store_port, 20'000);
  EXPECT_LT(environment->store_port, 30'000);
  EXPECT_EQ(environment->run_id, "slurm-777-2");
  EXPECT_FALSE(environment->hosts_store());
  variables["SLURM_STEP_ID"] = "3";
  EXPECT_NE(detect(variables)->store_port, environment->store_port);
  variables.erase("SLURM_STEP_ID");  // a batch script
  EXPECT_EQ(detect(variables)->launcher, Launcher::none);
}

TEST(Launcher, FirstSlurmHost) {
  EXPECT_EQ(first_slurm_host("node1"), "node1");
  EXPECT_EQ(first_slurm_host("node1,node2"), "node1");
  EXPECT_EQ(first_slurm_host("node[01-04,07],x"), "node01");
  EXPECT_EQ(first_slurm_host("node[7,9]"), "node7");
  EXPECT_EQ(first_slurm_host("rack[2-3]node[05-08].local"), "rack2node05.local");
}

TEST(Launcher, PlainVariables) {
  const auto environment = detect({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "h"}, {"MASTER_PORT", "5"}});
  ASSERT_TRUE(environment.ok()) << environment.error().message;
  EXPECT_EQ(environment->launcher, Launcher::plain);
  EXPECT_TRUE(environment->hosts_store());
  EXPECT_EQ(environment->local_world_size, 0);
  EXPECT_TRUE(detect({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).ok());
}

// Which ranks may be on other nodes, and who has the store there.
TEST(Launcher, SeveralNodes) {
  const auto spans = [](Variables variables, const Variables& changes) {
    for (const auto& [name, value] : changes) variables[name] = value;
    const auto environment = detect(variables);
    EXPECT_TRUE(environment.ok()) << environment.error().message;
    return environment.ok() && environment->may_span_nodes();
  };
  EXPECT_TRUE(spans(torchrun_variables(), {}));
  EXPECT_FALSE(spans(torchrun_variables(), {{"LOCAL_WORLD_SIZE", "4"}}));
  EXPECT_FALSE(spans(torchrun_variables(), {{"MASTER_ADDR", "localhost"}})) << "two torchruns on one machine";
  EXPECT_FALSE(spans(mpi_variables(), {}));
  EXPECT_FALSE(spans(mpi_variables(), {{"MASTER_ADDR", "node0"}, {"MASTER_PORT", "1234"}}));
  const Variables two_hosts = {{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"},
                               {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                               {"MASTER_ADDR", "node0"},
                               {"MASTER_PORT", "1234"}};
  EXPECT_TRUE(spans(mpi_variables(), two_hosts));
  EXPECT_TRUE(spans(slurm_variables(), {}));
  EXPECT_FALSE(spans(slurm_variables(),
                     {{"SLURM_STEP_NODELIST", "gpu03"}, {"SLURM_STEP_TASKS_PER_NODE", "6"}, {"SLURM_NODEID", "0"}}));
  const Variables plain = {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "node0"}, {"MASTER_PORT", "5"}};
  EXPECT_TRUE(spans(plain, {})) << "nothing says that they are on one node";
  EXPECT_TRUE(spans(plain, {{"LOCAL_WORLD_SIZE", "1"}}));
  EXPECT_FALSE(spans(plain, {{"LOCAL_WORLD_SIZE", "2"}}));
  EXPECT_FALSE(spans(plain, {{"MASTER_ADDR", "127.0.0.1"}}));
  EXPECT_FALSE(spans({{"RANK", "0"}, {"WORLD_SIZE", "1"}}, {}));
}

TEST(Launcher, SrunsTasksOfThisNodeAreCounted) {
  auto variables = slurm_variables();
  const auto local_size = [&](const std::string& counts, const std::string& node, const std::string& local_rank) {
    variables["SLURM_STEP_TASKS_PER_NODE"] = counts;
    variables["SLURM_NODEID"] = node;
    variables["SLURM_LOCALID"] = local_rank;
    return detect(variables)->local_world_size;
  };
  EXPECT_EQ(local_size("3(x2)", "1", "2"), 3);
  EXPECT_EQ(local_size("4,2", "0", "3"), 4);
  EXPECT_EQ(local_size("4,2", "1", "1"), 2);
  EXPECT_EQ(local_size("1,2(x2),1", "3", "0"), 1);
  EXPECT_EQ(local_size("4,2", "2", "0"), 0) << "there is no node 2";
  EXPECT_EQ(local_size("garbage", "0", "0"), 0);
  for (const char* counts : {"2(x-5),3", "2(x0),3", "2(x-2147483648),3", "-1(x9)"}) {
    EXPECT_EQ(local_size(counts, "1", "0"), 0) << counts;
  }
  EXPECT_TRUE(detect(variables)->may_span_nodes()) << "unknown";
}

TEST(Launcher, SrunTakesAnotherMeetingPlace) {
  auto variables = slurm_variables();
  variables["SLURM_PROCID"] = "0";
  variables["SLURM_LOCALID"] = "0";
  variables["MASTER_ADDR"] = "10.0.0.7";
  variables["MASTER_PORT"] = "1234";
  const auto environment = detect(variables);
  ASSERT_TRUE(environment.ok()) << environment.error().message;
  EXPECT_EQ(environment->store_host, "10.0.0.7");
  EXPECT_EQ(environment->store_port, 1234);
  EXPECT_TRUE(environment->hosts_store());
}

TEST(Launcher, BadValuesAreRefusedWithNameAndValue) {
  const std::vector<std::pair<std::string, std::string>> bad = {{"RANK", "4"},
                                                                {"RANK", "-1"},
                                                                {"RANK", "x"},
                                                                {"WORLD_SIZE", "0"},
                                                                {"WORLD_SIZE", "4097"},
                                                                {"WORLD_SIZE", "4x"},
                                                                {"LOCAL_RANK", "2"},
                                                                {"MASTER_PORT", "0"},
                                                                {"MASTER_PORT", "65536"},
                                                                {"RANK", "99999999999999999999"},
                                                                {"LOCAL_WORLD_SIZE", "5"}};
  for (const auto& [name, value] : bad) {
    auto variables = torchrun_variables();
    variables[name] = value;
    const auto refused = detect(variables);
    ASSERT_FALSE(refused.ok()) << name << "=" << value;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(refused.error().message.find(name + "=" + value), std::string::npos) << refused.error().message;
  }
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) {
    auto variables = torchrun_variables();
    variables[name] = "";
    const auto refused = detect(variables);
    ASSERT_FALSE(refused.ok());
    EXPECT_NE(refused.error().message.find(fmt::format("{} is not set", name)), std::string::npos);
  }
}

}  // namespace
}  // namespace chorus
