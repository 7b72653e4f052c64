// Goal: what a row of the table of options says of its field holds for every field. Method: a configuration is made
// without the table (testing/sample_value.h), so that a field that a row mistakes is seen.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/engine_config.h"
#include "testing/sample_value.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsSupersetOf;

constexpr Agreement all_agreements[] = {Agreement::own, Agreement::launched, Agreement::digested, Agreement::agreed};

std::vector<std::string> names_with(Agreement agreement) {
  std::vector<std::string> names;
  for (const auto& [name, value] : options_with(EngineConfig{}, agreement)) names.push_back(name);
  return names;
}

// `to` with the fields of `from` that no option sets.
void copy_what_no_option_sets(const EngineConfig& from, EngineConfig* to) {
  to->model = from.model;
  to->ray_address = from.ray_address;
  to->ray_pack_strategy = from.ray_pack_strategy;
  to->parallel.all_remote = from.parallel.all_remote;
  to->parallel.launched_workers = from.parallel.launched_workers;
}

TEST(EngineOptionTable, EachFieldIsReadAsItIsWritten) {
  for (const int seed : {2, 3}) {
    const auto written = sample_value<EngineConfig>(seed);
    EngineConfig read;
    copy_what_no_option_sets(written, &read);
    for (const Agreement agreement : all_agreements) {
      for (const auto& [name, value] : options_with(written, agreement)) {
        const auto applied = apply_engine_option(&read, name, value);
        EXPECT_TRUE(applied.ok()) << applied.error().message;
      }
    }
    EXPECT_TRUE(read == written);
  }
}

// The list that decides: an option that moves between these changes what a cluster accepts.
TEST(EngineOptionTable, SaysWhatMustAgree) {
  EXPECT_THAT(names_with(Agreement::agreed),
              ElementsAre("max-model-len", "block-size", "data-parallel-size", "tensor-parallel-size",
                          "pipeline-parallel-size", "decode-context-parallel-size", "pp-layer-partition",
                          "enable-expert-parallel", "enable-eplb", "eplb-config", "nodes-per-replica"));
  EXPECT_THAT(names_with(Agreement::digested), ElementsAre("dtype", "device", "cpu-isa", "load-format", "quantization",
                                                           "kv-cache-dtype", "generation-config"));
  EXPECT_THAT(names_with(Agreement::launched), ElementsAre("max-num-seqs", "max-num-batched-tokens", "seed"));
}

// Every option whose value is not its default, or a node would compute with another configuration than its head.
TEST(EngineOptionTable, NodesAreToldAllThatConcernsThem) {
  std::vector<std::string> told;
  for (const int seed : {3, 4}) {  // a flag or a name is at its default in one of them
    for (const std::string& argument : options_for_nodes(sample_value<EngineConfig>(seed))) {
      told.push_back(argument.substr(2, argument.find('=') - 2));
    }
  }
  for (const Agreement agreement : {Agreement::launched, Agreement::digested, Agreement::agreed}) {
    EXPECT_THAT(told, IsSupersetOf(names_with(agreement)));
  }
  EXPECT_THAT(told, IsSupersetOf({"threads", "kv-cache-memory", "scheduling-policy", "cluster-key-file",
                                  "data-parallel-address", "data-parallel-rpc-port", "engine-start-timeout-ms"}));
  EXPECT_EQ(options_for_nodes(EngineConfig{}), std::vector<std::string>{});
}

TEST(EngineOptionTable, DefaultsAreInBounds) {
  for (const Agreement agreement : all_agreements) {
    for (const auto& [name, value] : options_with(EngineConfig{}, agreement)) {
      EngineConfig config;
      ASSERT_TRUE(apply_engine_option(&config, name, value).ok()) << name;
      EXPECT_TRUE(config == EngineConfig{}) << name;
      EXPECT_TRUE(validate(config).ok()) << name;
    }
  }
}

TEST(EngineOptionTable, SeveralFrontEndsNeedTheReplicasOnThisMachine) {
  EngineConfig config;
  ASSERT_TRUE(apply_engine_option(&config, "-asc", "2").ok());
  EXPECT_TRUE(validate(config).ok());
  EngineConfig headless = config;
  headless.headless = true;
  headless.parallel.data_parallel_size = 2;
  headless.parallel.data_parallel_start_rank = 1;
  headless.parallel.data_parallel_rpc_port = 29550;
  EXPECT_THAT(validate(headless).error().message, testing::HasSubstr("a node with --headless has none"));
  config.parallel.data_parallel_size = 2;
  config.parallel.data_parallel_size_local = 1;
  EXPECT_THAT(validate(config).error().message, testing::HasSubstr("the server has one front end"));
}

}  // namespace
}  // namespace chorus
