#include "fleet/node_command.h"

#include <filesystem>

namespace chorus {
namespace {

std::string absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error);
  return error ? path : whole.lexically_normal().string();
}

}  // namespace

std::vector<std::string> node_command(const std::string& program, const EngineConfig& config, int rank, int part) {
  const ParallelConfig& parallel = config.parallel;
  std::vector<std::string> command = {program, "serve", absolute(config.model), "--headless"};
  const auto add = [&](const char* option, const std::string& value) {
    command.push_back(fmt::format("--{}={}", option, value));
  };
  const auto add_number = [&](const char* option, auto value) { add(option, fmt::format("{}", value)); };
  add("data-parallel-backend", "ray");
  add_number("data-parallel-size", parallel.data_parallel_size);
  add_number("data-parallel-size-local", 1);
  add_number("data-parallel-start-rank", rank);
  add("data-parallel-address", parallel.head_address());
  add_number("data-parallel-rpc-port", parallel.data_parallel_rpc_port);
  add_number("tensor-parallel-size", parallel.tensor_parallel_size);
  add_number("pipeline-parallel-size", parallel.pipeline_parallel_size);
  add_number("decode-context-parallel-size", parallel.decode_context_parallel_size);
  if (parallel.nodes_per_replica > 1) {
    add_number("nodes-per-replica", parallel.nodes_per_replica);
    add_number("node-rank", part);
  }
  if (!parallel.pipeline_layer_partition.empty()) add("pp-layer-partition", parallel.pipeline_layer_partition);
  if (parallel.enable_expert_parallel) add("enable-expert-parallel", "true");
  if (parallel.enable_expert_balancing) add("enable-eplb", "true");
  if (!parallel.expert_balancing_config.empty()) add("eplb-config", parallel.expert_balancing_config);
  if (!config.cluster_key_file.empty()) add("cluster-key-file", absolute(config.cluster_key_file));
  add("dtype", config.dtype);
  add("device", config.device);
  add("cpu-isa", config.cpu_isa);
  add_number("threads", config.threads);
  add("cpu-threads-bind", config.cpu_threads_bind);
  add_number("seed", config.seed);
  if (config.load_format != LoadFormat::automatic) {
    add("load-format", config.load_format == LoadFormat::dummy ? "dummy" : "safetensors");
  }
  const bool names_a_directory = config.generation_config != "auto" && config.generation_config != "chorus";
  add("generation-config", names_a_directory ? absolute(config.generation_config) : config.generation_config);
  add_number("max-model-len", config.max_model_len);
  add_number("block-size", config.block_size);
  add_number("kv-cache-memory", config.kv_cache_bytes);
  add_number("max-num-seqs", config.max_num_seqs);
  add_number("max-num-batched-tokens", config.max_num_batched_tokens);
  add_number("engine-start-timeout-ms", config.engine_start_timeout_ms);
  add_number("engine-heartbeat-timeout-ms", config.engine_heartbeat_timeout_ms);
  return command;
}

}  // namespace chorus
