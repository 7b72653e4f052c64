#include "worker/cluster_fingerprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing/sample_value.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;

// Goal: no field of a model that its tokens depend on is missing from the fingerprint. Method: each field changes
// alone; those that may differ are counted from the struct's ends.
TEST(ClusterFingerprint, HoldsEveryFieldOfTheModelThatAnEngineUses) {
  const EngineConfig config;
  const LoadedWeights weights;
  const Fingerprint head = cluster_fingerprint(config, sample_value<ModelConfig>(3), weights);
  const auto changed = samples_with_one_change<ModelConfig>(3);
  std::vector<std::size_t> may_differ;
  for (std::size_t i = 0; i < changed.size(); ++i) {
    if (differences(head, cluster_fingerprint(config, changed[i], weights), "b").empty()) may_differ.push_back(i);
  }
  const std::size_t count = changed.size();  // its place, then at the end what ends a choice, and the defaults
  EXPECT_THAT(may_differ, ElementsAre(0, count - 10, count - 9, count - 8, count - 7, count - 6, count - 5, count - 4,
                                      count - 3, count - 2, count - 1));
}

TEST(ClusterFingerprint, ComparesWhatALengthOfZeroMeans) {
  EngineConfig given, chosen;
  ModelConfig model;
  model.max_position_embeddings = given.max_model_len = 512;
  const LoadedWeights weights;
  const Fingerprint head = cluster_fingerprint(given, model, weights);
  EXPECT_EQ(differences(head, cluster_fingerprint(chosen, model, weights), "b"), "");
  chosen.max_model_len = 256;
  EXPECT_EQ(differences(head, cluster_fingerprint(chosen, model, weights), "b"),
            "max-model-len is 512 on the head and 256 on node b");
}

// Goal: replicas whose tokens could differ never meet.
TEST(ClusterFingerprint, HoldsWhatKeysAndValuesAreStoredAs) {
  EngineConfig head, node;
  LoadedWeights weights;
  weights.dtype = DType::bfloat16;
  const ModelConfig model;
  node.kv_cache_dtype = KvCacheDType::bfloat16;
  EXPECT_EQ(differences(cluster_fingerprint(head, model, weights), cluster_fingerprint(node, model, weights), "b"), "");
  node.kv_cache_dtype = KvCacheDType::int8;
  EXPECT_EQ(differences(cluster_fingerprint(head, model, weights), cluster_fingerprint(node, model, weights), "b"),
            "numerics profile is scalar/bfloat16 on the head and scalar/bfloat16/kv-int8 on node b");
}

}  // namespace
}  // namespace chorus
