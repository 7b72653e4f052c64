// Goal: what is given for an outer load balancer means what it means to vLLM, and what makes no sense is refused with
// both values. Method: command lines as users write them.
#include "config/outer_balancer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Given = std::vector<std::pair<const char*, const char*>>;

Result<EngineConfig> settle(const Given& options) {
  EngineConfig config;
  for (const auto& [name, value] : options) CHORUS_TRY_VOID(apply_engine_option(&config, name, value));
  CHORUS_TRY_VOID(settle_outer_balancer(&config));
  CHORUS_TRY_VOID(validate(config));
  return config;
}

std::string refusal(const Given& options) {
  const auto settled = settle(options);
  return settled.ok() ? "accepted" : settled.error().message;
}

struct Mode {
  bool external = false, hybrid = false, multi_port = false;
  int begin = 0, end = 0;  // of the ranks behind its door or doors
  bool operator==(const Mode&) const = default;
};
Mode mode(const Given& options) {
  const auto settled = settle(options);
  EXPECT_TRUE(settled.ok()) << settled.error().message;
  if (!settled.ok()) return {};
  const ParallelConfig& parallel = settled->parallel;
  EXPECT_FALSE(parallel.several_nodes());
  EXPECT_EQ(parallel.fleet_begin(), parallel.door_begin());
  EXPECT_EQ(parallel.fleet_end(), parallel.door_end());
  return {parallel.data_parallel_external_lb, parallel.data_parallel_hybrid_lb,
          parallel.data_parallel_multi_port_external_lb, parallel.door_begin(), parallel.door_end()};
}

TEST(OuterBalancer, IsWhatVllmMakesOfTheOptions) {
  EXPECT_EQ(mode({{"-dp", "4"}}), (Mode{false, false, false, 0, 4}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dpn", "0"}}), (Mode{true, false, false, 0, 1}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dpn", "3"}, {"-dpa", "10.0.0.1"}, {"-dpp", "29550"}}),
            (Mode{true, false, false, 3, 4}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dpe", "true"}, {"-dpn", "2"}}), (Mode{true, false, false, 2, 3}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dph", "true"}, {"-dpl", "2"}}), (Mode{false, true, false, 0, 2}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dph", "true"}, {"-dpl", "2"}, {"-dpr", "2"}}), (Mode{false, true, false, 2, 4}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dpl", "2"}, {"-dpr", "2"}}), (Mode{false, true, false, 2, 4})) << "implied";
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dpr", "1"}}), (Mode{false, true, false, 1, 4})) << "all from there on";
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dph", "true"}, {"-dpl", "1"}, {"-dpr", "3"}}), (Mode{true, false, false, 3, 4}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dph", "true"}, {"-dpl", "4"}}), (Mode{false, false, false, 0, 4}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dpm", "true"}}), (Mode{false, false, true, 0, 4}));
  EXPECT_EQ(mode({{"-dp", "4"}, {"-dpm", "true"}, {"-dpl", "2"}, {"-dpr", "2"}}), (Mode{false, false, true, 2, 4}));
}

TEST(OuterBalancer, RefusesWhatMakesNoSenseWithBothValues) {
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpn", "1"}, {"-dph", "true"}}),
              AllOf(HasSubstr("--data-parallel-rank"), HasSubstr("--data-parallel-hybrid-lb")));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpm", "true"}, {"-dpe", "true"}}),
              AllOf(HasSubstr("--data-parallel-multi-port-external-lb"), HasSubstr("--data-parallel-external-lb")));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpn", "4"}}), HasSubstr("--data-parallel-rank is 4; accepted: 0 to 3"));
  EXPECT_THAT(refusal({{"-dpn", "0"}}), HasSubstr("--data-parallel-size 1"));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpe", "true"}}), HasSubstr("needs --data-parallel-rank"));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpn", "1"}, {"-dpl", "2"}}),
              AllOf(HasSubstr("--data-parallel-rank 1"), HasSubstr("--data-parallel-size-local is 2")));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpn", "1"}, {"-dpr", "2"}}),
              AllOf(HasSubstr("--data-parallel-rank is 1"), HasSubstr("--data-parallel-start-rank 2")));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dph", "true"}}), HasSubstr("needs --data-parallel-size-local"));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dph", "true"}, {"-dpl", "3"}, {"-dpr", "2"}}),
              HasSubstr("go beyond --data-parallel-size 4"));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpm", "true"}, {"-asc", "2"}}), HasSubstr("--api-server-count is 2"));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpn", "1"}, {"--headless", "true"}}), HasSubstr("--headless has none"));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpn", "1"}, {"-dpb", "ray"}}), HasSubstr("Ray brings all replicas"));
  EXPECT_THAT(refusal({{"-dp", "4"}, {"-dpn", "1"}, {"-tp", "2"}, {"--nodes-per-replica", "2"}}),
              HasSubstr("--nodes-per-replica 2"));
}

// Elsewhere the first rank of a node is that of a node without a front end.
TEST(OuterBalancer, IsAskedForByAServerAlone) {
  EngineConfig config;
  config.parallel.data_parallel_size = 4;
  config.parallel.data_parallel_start_rank = 2;
  EXPECT_THAT(validate(config).error().message, HasSubstr("give --headless on the others"));
}

}  // namespace
}  // namespace chorus
