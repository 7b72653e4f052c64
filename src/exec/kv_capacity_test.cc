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

TEST_F(KvCapacityTest, CountsTheLongestRequestsThatHaveRoom) {
  config.max_model_len = 80;
  EXPECT_DOUBLE_EQ(kv_capacity(config, model, 12 * block_bytes).value().longest_requests, 12.0 / 5);
  config.parallel.decode_context_parallel_size = 2;  // all of its tokens are the first worker's
  EXPECT_DOUBLE_EQ(kv_capacity(config, model, 12 * block_bytes).value().longest_requests, 12.0 / 5);
}

TEST_F(KvCapacityTest, CountsWhatKeysAndValuesAreStoredAs) {
  for (const char* dtype : {"bfloat16", "float32"}) {  // of the computation
    config.dtype = dtype;
    config.kv_cache_dtype = KvCacheDType::bfloat16;
    EXPECT_EQ(tokens(12 * block_bytes), 192);
    config.kv_cache_dtype = KvCacheDType::float32;
    EXPECT_EQ(tokens(12 * block_bytes), 96);
    config.kv_cache_dtype = KvCacheDType::int8;  // a head of 8 takes 8 bytes and 4 of its scale, not 16
    EXPECT_EQ(tokens(12 * block_bytes), 256);
  }
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

// Goal: layers with a window take no more of a long sequence than their window. Gemma 3 1B's shape: 26 layers, of which
// each sixth sees all keys and the others 512.
TEST_F(KvCapacityTest, WindowedLayersHoldTheirWindowAlone) {
  config.model = std::string(CHORUS_TEST_DATA) + "/models/gemma3";
  model = read_model_config(config.model, "auto").value();
  model.num_hidden_layers = 26;
  model.layer_window.clear();
  for (int layer = 0; layer < 26; ++layer) model.layer_window.push_back(layer % 6 == 5 ? 0 : 512);
  model.layer_is_rotary.assign(26, true);
  config.max_num_batched_tokens = 2048;
  const std::uint64_t layer_block = 2 * 16 * static_cast<std::uint64_t>(model.num_key_value_heads * model.head_dim) * 2;
  // 4 layers that see all keys and 22 others in 6 tables: 4 slots. At 32,768 tokens 2,048 blocks of the first table and
  // (512 + 2,048 + 16 tokens) 162 of each other one.
  const std::uint64_t blocks = 2048 + 6 * 162;
  EXPECT_EQ(tokens(blocks * 4 * layer_block), 32'768);
  EXPECT_EQ(tokens((blocks - 1) * 4 * layer_block), 32'768 - 16);
  EXPECT_LT(tokens(2048 * 26 * layer_block / 5), 32'768) << "of all layers, a fifth would hold it";
  EXPECT_GE(tokens(2048 * 26 * layer_block / 4), 32'768);
  config.max_model_len = 2048;  // of which each table has all 128 blocks when the prompt is computed at once
  const KvCapacity capacity = kv_capacity(config, model, blocks * 4 * layer_block).value();
  EXPECT_DOUBLE_EQ(capacity.longest_requests, static_cast<double>(blocks) / (7 * 128));
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
