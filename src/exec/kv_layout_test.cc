#include "exec/kv_layout.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace chorus {
namespace {

ModelConfig model_of(std::vector<int> windows) {
  ModelConfig model;
  model.num_hidden_layers = static_cast<int>(windows.size());
  model.layer_window = std::move(windows);
  return model;
}

ParallelConfig stages(int count) {
  ParallelConfig parallel;
  parallel.pipeline_parallel_size = count;
  return parallel;
}

TEST(KvWindow, HasATableForAsManyLayersAsSeeAllKeys) {
  EXPECT_EQ(kv_window(model_of({8, 0}), {}), (KvWindow{1, 8}));                       // Gemma 2
  EXPECT_EQ(kv_window(model_of({8, 8, 8, 8, 8, 0}), {}), (KvWindow{5, 8}));           // Gemma 3
  EXPECT_EQ(kv_window(model_of({8, 8, 8, 8, 8, 0, 4, 4, 0}), {}), (KvWindow{4, 8}));  // 7 in tables of 2
  EXPECT_EQ(kv_window(model_of(std::vector<int>(40, 8)), {}), KvWindow()) << "no layer sees all keys";
  EXPECT_EQ(kv_window(model_of({0, 0, 0}), {}), KvWindow());
}

TEST(KvWindow, IsOneForAllStages) {
  EXPECT_EQ(kv_window(model_of({8, 8, 0, 8, 8, 8, 8, 0}), stages(2)), (KvWindow{3, 8}));
}

TEST(KvWindow, IsNoneWhereTablesWouldBeUnlike) {
  std::vector<int> windows(21, 0);
  windows.resize(28, 8);  // Qwen2's upper layers
  EXPECT_EQ(kv_window(model_of(windows), {}), KvWindow());
  EXPECT_EQ(kv_window(model_of({8, 8, 8, 0}), stages(2)), KvWindow()) << "a stage without a layer that sees all keys";
  windows.assign(62, 8);  // Gemma 3 27B: 52 windowed layers in 6 tables of 10 slots
  for (std::size_t layer = 5; layer < windows.size(); layer += 6) windows[layer] = 0;
  EXPECT_EQ(kv_window(model_of(windows), {}), (KvWindow{6, 8}));
}

TEST(KvWindow, IsNoneWhereContextRanksShareTheKeys) {
  ParallelConfig parallel;
  parallel.decode_context_parallel_size = 2;
  EXPECT_EQ(kv_window(model_of({8, 0}), parallel), KvWindow());
}

// Goal: two layers of one table never lie in one slot, and a block is as small as it can be.
TEST(KvPlaces, ShareASlotBetweenTablesAlone) {
  const KvCacheSpec all_keys{.kv_heads = 2, .head_dim = 8}, windowed{.kv_heads = 2, .head_dim = 8, .window = 8};
  std::vector<KvCacheSpec> layers;
  for (int i = 0; i < 26; ++i) layers.push_back(i % 6 == 5 ? all_keys : windowed);
  const KvPlaces places(layers, {6, 8}, 16, KvDType::bfloat16);
  std::map<std::pair<int, int>, int> used;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const KvPlace& place = places.of(layer);
    EXPECT_EQ(place.table > 0, layers[layer].window > 0);
    EXPECT_LE(place.table, 6);
    EXPECT_EQ((used[{place.table, place.slot}]++), 0) << "layer " << layer;
  }
  EXPECT_EQ(places.slots(), 4);
  EXPECT_EQ(places.block_bytes(), 4 * all_keys.block_bytes(16, KvDType::bfloat16));
  const KvPlaces whole(layers, {}, 16, KvDType::bfloat16);
  EXPECT_EQ(whole.block_bytes(), 26 * all_keys.block_bytes(16, KvDType::bfloat16));
}

TEST(KvPlaces, CountCodesWithTheirScalesAndStatesInFloat32) {
  const std::vector<KvCacheSpec> layers = {{.kv_heads = 2, .head_dim = 64}, {.state_floats = 1000}};
  const KvPlaces codes(layers, {}, 16, KvDType::int8), floats(layers, {}, 16, KvDType::float32);
  EXPECT_EQ(codes.slot_bytes(0), 2U * 2 * 16 * (64 + 4));
  EXPECT_EQ(floats.slot_bytes(0), 2U * 2 * 16 * 64 * 4);
  for (const KvPlaces* places : {&codes, &floats}) EXPECT_EQ(places->slot_bytes(1), 4032U) << "whole cache lines";
}

TEST(KvPlaces, GiveASlotWhatItsLargestLayerTakes) {
  const std::vector<KvCacheSpec> layers = {{.kv_heads = 1, .head_dim = 8}, {.kv_heads = 4, .head_dim = 8, .window = 8}};
  const KvPlaces places(layers, {1, 8}, 16, KvDType::float32);
  EXPECT_EQ(places.slots(), 1);
  EXPECT_EQ(places.slot_bytes(0), layers[1].block_bytes(16, KvDType::float32));
}

}  // namespace
}  // namespace chorus
