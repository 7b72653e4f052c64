#include "fleet/launched_fingerprint.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace chorus {
namespace {

// FNV-1a: the same in every build.
std::uint64_t hash_of(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return hash;
}

Result<std::string> describe_model(const EngineConfig& config) {
  std::ifstream file(std::filesystem::path(config.model) / "config.json", std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  std::vector<std::string> weights;
  std::error_code error;
  for (std::filesystem::directory_iterator at(config.model, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() != ".safetensors") continue;
    weights.push_back(fmt::format(" {}:{}", at->path().filename().string(), at->file_size(error)));
  }
  if (error) return fail(ErrorCode::unavailable, "{}: {}", config.model, error.message());
  std::ranges::sort(weights);
  for (const std::string& line : weights) text += line;
  return fmt::format("{:016x} (config.json and weight files)", hash_of(text));
}

}  // namespace

Result<std::vector<std::pair<std::string, std::string>>> launched_fingerprint(const EngineConfig& config,
                                                                              const ModelConfig& model, Isa isa,
                                                                              const std::string& version) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const auto add = [&](const char* name, const auto& value) { pairs.emplace_back(name, fmt::format("{}", value)); };
  add("version", version);
  CHORUS_TRY(const std::string described, describe_model(config));
  add("model", described);
  add("dtype", name_of(compute_dtype(config, model)));
  add("cpu-isa", name_of(isa));
  const ParallelConfig& parallel = config.parallel;
  add("data-parallel-size", parallel.data_parallel_size);
  add("tensor-parallel-size", parallel.tensor_parallel_size);
  add("pipeline-parallel-size", parallel.pipeline_parallel_size);
  add("decode-context-parallel-size", parallel.decode_context_parallel_size);
  add("pp-layer-partition", parallel.pipeline_layer_partition);
  add("enable-expert-parallel", parallel.enable_expert_parallel);
  add("enable-eplb", parallel.enable_expert_balancing);
  add("eplb-config", parallel.expert_balancing_config);
  add("max-model-len", config.max_model_len);
  add("block-size", config.block_size);
  add("max-num-seqs", config.max_num_seqs);
  add("max-num-batched-tokens", config.max_num_batched_tokens);
  add("seed", config.seed);
  add("load-format", static_cast<int>(config.load_format));
  return pairs;
}

}  // namespace chorus
