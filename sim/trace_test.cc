#include <gtest/gtest.h>

#include "trace_run.h"

namespace chorus::sim {
namespace {

// 25 conversations of six turns: each turn's prompt is the one before and two blocks more. 4 s between turns, so that
// the answer before is there; and 25, so that taking four replicas in turn does not lead back to the same one.
std::vector<TraceRequest> conversations() {
  std::vector<TraceRequest> trace;
  for (std::uint64_t turn = 0; turn < 6; ++turn) {
    for (std::uint64_t talk = 0; talk < 25; ++talk) {
      TraceRequest& request = trace.emplace_back();
      request.arrival = static_cast<Nanoseconds>(turn * 4'000 + talk * 150) * 1'000'000;
      for (std::uint64_t block = 0; block < 2 + 2 * turn; ++block) request.blocks.push_back(1'000 * talk + block);
      request.input_tokens = static_cast<std::int32_t>(request.blocks.size()) * trace_block_tokens - 100;
      request.output_tokens = 40;
    }
  }
  return trace;
}

TEST(Trace, PrefixAffinityFindsWhatConversationsHaveComputed) {
  TraceConfig config;
  config.replicas = 4;
  config.balancer = LoadBalancerName::least_loaded;
  const TraceOutcome plain = run_trace(conversations(), config);
  config.balancer = LoadBalancerName::prefix_affinity;
  const TraceOutcome affine = run_trace(conversations(), config);
  EXPECT_EQ(affine.requests, 150U);
  EXPECT_GE(affine.cached_tokens, 2 * plain.cached_tokens);
  EXPECT_GE(affine.cached_tokens * 10, affine.prompt_tokens * 6) << "all but each turn's own two blocks";
  EXPECT_LE(affine.waiting_p99_s, 1.1 * plain.waiting_p99_s);
  const TraceOutcome again = run_trace(conversations(), config);
  EXPECT_EQ(again.cached_tokens, affine.cached_tokens);
  EXPECT_EQ(again.waiting_p99_s, affine.waiting_p99_s);
}

TEST(Trace, ALineThatIsWrongIsNamed) {
  const std::string path = testing::TempDir() + "trace.jsonl";
  std::FILE* const file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  std::fputs(R"({"timestamp": 5, "input_length": 700, "output_length": 3, "hash_ids": [1, 2]})", file);
  std::fputs("\n{\"timestamp\": 6}\n", file);
  std::fclose(file);
  const auto trace = read_trace(path);
  ASSERT_FALSE(trace.ok());
  EXPECT_NE(trace.error().message.find("line 2"), std::string::npos) << trace.error().message;
}

}  // namespace
}  // namespace chorus::sim
