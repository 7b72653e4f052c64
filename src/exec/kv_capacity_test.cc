#include "exec/kv_capacity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/registry.h"

namespace chorus {
namespace {

// 5 layers of 4 kv heads of 8 dimensions: 640 bytes per token in bfloat16, 10,240 per block.
constexpr std::uint64_t token_bytes = 640, block_bytes = 16 * token_bytes;

class KvCapacityTest : public testing::Test {
 protected:
  KvCapacityTest() {
    config.model = std::string(CHORUS_MODELS) + "/stories260k";
    config.dtype = "bfloat16";
    model = read_model_config(config.model, "auto").value();
    node.memory_available_bytes = std::uint64_t{1} << 30;
  }

  std::int64_t tokens(std::uint64_t bytes) { return kv_capacity(config, model, bytes).value().tokens; }

  EngineConfig config;
  ModelConfig model;
  NodeResources node;
};

TEST_F(KvCapacityTest, CountsWholeBlocks) {
  EXPECT_EQ(tokens(10 * block_bytes), 160);
  EXPECT_EQ(tokens(10 * block_bytes - 1), 144);
  EXPECT_EQ(tokens(block_bytes - 1), 0);
}

TEST_F(KvCapacityTest, EachWorkerHasItsPartOfABlock) {
  config.parallel.tensor_parallel_size = 2;
  EXPECT_EQ(tokens(10 * block_bytes / 2), 160);
  config.parallel.pipeline_parallel_size = 2;  // 3 of the 5 layers on one of the stages
  EXPECT_EQ(tokens(10 * block_bytes / 2 * 3 / 5), 160);
  EXPECT_EQ(tokens(10 * block_bytes / 2 * 3 / 5 - 1), 144);
}

TEST_F(KvCapacityTest, ContextParallelWorkersTakeTurns) {
  config.parallel.decode_context_parallel_size = 2;
  // The first has the tokens 0 to 255 and 512 to 767, the second 256 to 511.
  EXPECT_EQ(tokens(10 * block_bytes), 160);
  EXPECT_EQ(tokens(16 * block_bytes), 512);
  EXPECT_EQ(tokens(20 * block_bytes), 512 + 64);
}

TEST_F(KvCapacityTest, RefusesALengthThatWasGivenAndCannotBeHeld) {
  config.kv_cache_bytes = 10 * block_bytes;
  config.max_model_len = 161;  // the last token needs no place
  EXPECT_EQ(fit_to_kv_memory(config, model, node).value().max_model_len, 161);
  config.max_model_len = 162;
  const auto refused = fit_to_kv_memory(config, model, node);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(refused.error().message, testing::AllOf(testing::HasSubstr("162"), testing::HasSubstr("160 tokens")));
}

TEST_F(KvCapacityTest, LowersALengthThatWasNotGiven) {
  config.kv_cache_bytes = 10 * block_bytes;
  EXPECT_EQ(fit_to_kv_memory(config, model, node).value().max_model_len, 160);
  config.kv_cache_bytes = 32 * block_bytes;
  EXPECT_EQ(fit_to_kv_memory(config, model, node).value().max_model_len, 0) << "the model's fits";
}

TEST_F(KvCapacityTest, ChoosesTheMemoryThatItCountsOn) {
  const std::uint64_t weights = kv_capacity(config, model, 0).value().weight_bytes;
  EXPECT_GT(weights, 100'000U);
  node.memory_available_bytes = weights + 40 * block_bytes;
  config.parallel.data_parallel_size = 2;
  const EngineConfig fitted = fit_to_kv_memory(config, model, node).value();
  EXPECT_EQ(fitted.kv_cache_bytes, 10 * block_bytes) << "half of what is left, for two workers";
  EXPECT_EQ(fitted.max_model_len, 160);
  config.distributed_executor_backend = "external_launcher";
  EXPECT_EQ(fit_to_kv_memory(config, model, node).value().kv_cache_bytes, 0U) << "every rank chooses its own";
}

}  // namespace
}  // namespace chorus
