#include "worker/cluster_fingerprint.h"

#include <algorithm>
#include <map>
#include <set>

#include "net/authentication.h"
#include "worker/engine_process.h"

namespace chorus {
namespace {

// Where it lies and what the front end takes from it by default concern no engine. What ends a choice is the head's to
// say: a node need not have the tokenizer.
std::string hash_of(ModelConfig model) {
  const ModelConfig none;
  model.directory.clear();
  model.eos_token_ids.clear();
  model.eos_token_id.reset();
  model.default_temperature = none.default_temperature;
  model.default_top_p = none.default_top_p;
  model.default_min_p = none.default_min_p;
  model.default_top_k = none.default_top_k;
  model.default_repetition_penalty = none.default_repetition_penalty;
  return sha256_hex({encode(model)}).substr(0, 16);
}

}  // namespace

Fingerprint cluster_fingerprint(const EngineConfig& config, const ModelConfig& model, const LoadedWeights& weights) {
  const ParallelConfig& parallel = config.parallel;
  const int max_model_len = config.max_model_len > 0 ? config.max_model_len : model.max_position_embeddings;
  const auto text = [](auto number) { return fmt::format("{}", number); };
  return {
      {"version", fmt::format("{} (protocol {})", CHORUS_VERSION, protocol_version)},
      {"model config", fmt::format("{} {}", model.architecture, hash_of(model))},
      {"numerics profile", numerics_profile(weights)},
      {"weights", weights.digest},
      {"max-model-len", text(max_model_len)},
      {"block-size", text(config.block_size)},
      {"data-parallel-size", text(parallel.data_parallel_size)},
      {"tensor-parallel-size", text(parallel.tensor_parallel_size)},
      {"pipeline-parallel-size", text(parallel.pipeline_parallel_size)},
      {"pp-layer-partition", parallel.pipeline_layer_partition},
      {"decode-context-parallel-size", text(parallel.decode_context_parallel_size)},
      {"nodes-per-replica", text(parallel.nodes_per_replica)},
      {"enable-expert-parallel", text(parallel.enable_expert_parallel)},
      {"enable-eplb", text(parallel.enable_expert_balancing)},
      {"eplb-config", parallel.expert_balancing_config},
  };
}

std::string differences(const Fingerprint& head, const Fingerprint& node, const std::string& node_name) {
  const std::map<std::string, std::string> ours(head.begin(), head.end());
  const std::map<std::string, std::string> theirs(node.begin(), node.end());
  std::set<std::string> names;
  for (const auto& [name, value] : ours) names.insert(name);
  for (const auto& [name, value] : theirs) names.insert(name);
  std::string text;
  for (const std::string& name : names) {
    const auto value = [&name](const auto& of) { return of.contains(name) ? of.at(name) : std::string("not known"); };
    if (value(ours) == value(theirs)) continue;
    text += fmt::format("{}{} is {} on the head and {} on node {}", text.empty() ? "" : "; ", name, value(ours),
                        value(theirs), node_name);
  }
  return text;
}

}  // namespace chorus
