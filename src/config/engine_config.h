// The configuration of an engine and of the fleet of replicas around it: values, defaults and one validate().
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/fields.h"
#include "base/result.h"
#include "config/model_config.h"
#include "config/nearest_name.h"

namespace chorus {

enum class SchedulingPolicy : std::uint8_t { fcfs, priority };
enum class LoadFormat : std::uint8_t { automatic, safetensors, dummy };
enum class LoadBalancerName : std::uint8_t { round_robin, least_loaded };
enum class AssignmentName : std::uint8_t { modulo, contiguous, priority, dynamic };
constexpr auto enumeration_of(SchedulingPolicy) {
  return Enumeration{"a scheduling policy", SchedulingPolicy::priority};
}
constexpr auto enumeration_of(LoadFormat) {
  return Enumeration{"a load format", LoadFormat::dummy};
}
constexpr auto enumeration_of(LoadBalancerName) {
  return Enumeration{"a load balancer", LoadBalancerName::least_loaded};
}
constexpr auto enumeration_of(AssignmentName) {
  return Enumeration{"an assignment", AssignmentName::dynamic};
}

struct ParallelConfig {
  int data_parallel_size = 1;
  int tensor_parallel_size = 1;
  int pipeline_parallel_size = 1;
  int decode_context_parallel_size = 1;
  std::string pipeline_layer_partition = {};  // --pp-layer-partition: layers of each stage, "5,4"; empty: even
  bool enable_expert_parallel = false;
  bool enable_expert_balancing = false;      // --enable-eplb
  std::string expert_balancing_config = {};  // --eplb-config: JSON; empty: not given
  int data_parallel_size_local = 0;          // replicas on this node; 0: all from data_parallel_start_rank on
  int data_parallel_start_rank = 0;          // of this node's replicas
  int data_parallel_rank = -1;               // the one replica of this process behind an outer balancer; -1: not so
  std::string data_parallel_address = {};    // of the first node; empty: this machine
  int data_parallel_rpc_port = 0;            // 0: chosen and published
  bool data_parallel_hybrid_lb = false;
  bool data_parallel_external_lb = false;
  bool all_remote = false;    // this node has no replicas: others bring them all
  int nodes_per_replica = 1;  // the workers of a replica are spread evenly over so many nodes
  int node_rank = 0;          // which part of its replicas this node has
  int launched_workers = 0;   // workers that a launcher started on this node; 0: none did
  int replica_size() const { return tensor_parallel_size * pipeline_parallel_size * decode_context_parallel_size; }
  int world_size() const { return data_parallel_size * replica_size(); }
  // Of each replica, this node has workers [first_local_worker(), first_local_worker() + workers_per_node()).
  int workers_per_node() const { return replica_size() / nodes_per_replica; }
  int first_local_worker() const { return node_rank * workers_per_node(); }
  // Ranks that share the experts of a pipeline stage; 1 without expert parallelism.
  int expert_parallel_size() const { return enable_expert_parallel ? data_parallel_size * tensor_parallel_size : 1; }
  // Replicas that exchange tokens step together and are one world: they start, fail and end as one.
  bool replicas_step_together() const { return expert_parallel_size() > 1 && data_parallel_size > 1; }
  // Of the replicas, those on this node; the others are on nodes that run with --headless.
  int local_replicas() const {
    if (all_remote) return 0;
    return data_parallel_size_local > 0 ? data_parallel_size_local : data_parallel_size - data_parallel_start_rank;
  }
  // Workers of all replicas that share this node's cores and memory.
  int local_workers() const { return launched_workers > 0 ? launched_workers : local_replicas() * workers_per_node(); }
  bool is_local(int dp_rank) const {
    return dp_rank >= data_parallel_start_rank && dp_rank < data_parallel_start_rank + local_replicas();
  }
  bool several_nodes() const { return local_replicas() < data_parallel_size || nodes_per_replica > 1; }
  // Workers on different nodes compute together: every worker of every replica comes to the head by itself, which
  // brings them together.
  bool workers_join_singly() const { return several_nodes() && (nodes_per_replica > 1 || replicas_step_together()); }
  // Where nodes meet.
  std::string head_address() const { return data_parallel_address.empty() ? "127.0.0.1" : data_parallel_address; }
  bool operator==(const ParallelConfig&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.data_parallel_size, self.tensor_parallel_size, self.pipeline_parallel_size,
                 self.decode_context_parallel_size, self.pipeline_layer_partition, self.enable_expert_parallel,
                 self.enable_expert_balancing, self.expert_balancing_config, self.data_parallel_size_local,
                 self.data_parallel_start_rank, self.data_parallel_rank, self.data_parallel_address,
                 self.data_parallel_rpc_port, self.data_parallel_hybrid_lb, self.data_parallel_external_lb,
                 self.all_remote, self.nodes_per_replica, self.node_rank, self.launched_workers);
  }
};

// Everything a user may set for engines. Units are last in a name; 0 means "choose" where the comment says so.
struct EngineConfig {
  std::string model;                      // directory
  std::string tokenizer;                  // must be the model's directory; empty: the same
  std::string dtype = "auto";             // auto | bfloat16 | float32
  std::string device = "auto";            // auto | cpu | cuda
  std::string cpu_isa = "auto";           // auto | amx-bf16 | avx512-bf16 | avx2-f32 | scalar
  int threads = 0;                        // per worker; 0: the process's cores / replicas on this node, at least 1
  std::string cpu_threads_bind = "auto";  // auto | "0-3|4-7" (a set a worker) | none
  int max_model_len = 0;                  // 0: the model's max_position_embeddings
  int block_size = 16;                    // tokens a KV block
  std::uint64_t kv_cache_bytes = 0;       // per worker; 0: from the free memory, at most 4 GiB
  int max_num_seqs = 256;
  int max_num_batched_tokens = 2048;
  bool enable_prefix_caching = true;
  SchedulingPolicy scheduling_policy = SchedulingPolicy::fcfs;
  std::uint64_t seed = 0;  // of dummy weights, and of requests that bring none
  LoadFormat load_format = LoadFormat::automatic;
  std::string generation_config = "auto";           // auto | chorus | directory
  bool trust_remote_code = false;                   // accepted; Chorus never runs a model's code
  std::string distributed_executor_backend = "mp";  // uni | mp | external_launcher | ray
  std::string data_parallel_backend = "mp";         // mp | ray
  LoadBalancerName load_balancer = LoadBalancerName::least_loaded;
  AssignmentName assignment = AssignmentName::dynamic;
  std::string ray_address;                   // RAY_ADDRESS: HOST:PORT or auto; empty: a cluster of its own
  std::string ray_pack_strategy = "strict";  // CHORUS_RAY_DP_PACK_STRATEGY: strict | fill | span
  // Ray places the replicas; with headless: this node is one that Ray has placed.
  bool on_ray() const { return data_parallel_backend == "ray" || distributed_executor_backend == "ray"; }
  ParallelConfig parallel;
  int api_server_count = 1;
  std::string fault_point;               // config/fault_point.h; empty: none
  bool headless = false;                 // engines without a front end
  std::string cluster_key_file;          // what nodes prove to each other that they belong together with; empty: none
  int engine_start_timeout_ms = 600000;  // from spawn to READY
  // Without progress or heartbeat an engine counts as dead. An engine says nothing during a step, and one of a large
  // model on a slow machine takes minutes; a crash is noticed at once by other means, only a hang waits for this.
  int engine_heartbeat_timeout_ms = 600000;
  bool operator==(const EngineConfig&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.model, self.tokenizer, self.dtype, self.device, self.cpu_isa, self.threads, self.cpu_threads_bind,
                 self.max_model_len, self.block_size, self.kv_cache_bytes, self.max_num_seqs,
                 self.max_num_batched_tokens, self.enable_prefix_caching, self.scheduling_policy, self.seed,
                 self.load_format, self.generation_config, self.trust_remote_code, self.distributed_executor_backend,
                 self.data_parallel_backend, self.load_balancer, self.assignment, self.ray_address,
                 self.ray_pack_strategy, self.parallel, self.api_server_count, self.fault_point, self.headless,
                 self.cluster_key_file, self.engine_start_timeout_ms, self.engine_heartbeat_timeout_ms);
  }
};

// Checks every bound that needs no file and no machine, and refuses what this version does not run. One line: option,
// value, what is accepted.
Result<void> validate(const EngineConfig& config);
// With the model's numbers: max_model_len, head counts divisible by the tensor-parallel size (says which sizes would
// do).
Result<void> validate(const EngineConfig& config, const ModelConfig& model);
// The configuration with what the model decides: a model without experts has nothing to share out among expert-parallel
// ranks.
EngineConfig settled(EngineConfig config, const ModelConfig& model);

// By its name or number alone: nobody is asked.
bool is_loopback(const std::string& host);

// For what other machines can reach: "WHY, and there is no --cluster-key-file", and how to make one.
Error missing_cluster_key(const std::string& why);

// What the config's dtype means for this model. "auto": the checkpoint's own, float16 as float32 (there is no float16
// kernel, and bfloat16 would drop three bits of each weight).
DType compute_dtype(const EngineConfig& config, const ModelConfig& model);

// "4GiB", "512MiB", "1.5G", "1000000": bytes. K, M, G, T (also as KiB ...) are powers of 1024; KB, MB, GB, TB of 1000.
Result<std::uint64_t> parse_bytes(const std::string& text);

// Engine options as the CLI, workflow JSON and later the server name them: one readable table. Applying "max_model_len"
// or "max-model-len" with a value sets the field; an unknown name is an error that names the nearest known one; options
// of vLLM that Chorus accepts and has no use for (gpu_memory_utilization, enforce_eager, ...) are in the table too.
struct EngineOption {
  const char* name;        // with dashes: "max-model-len"
  const char* short_name;  // "-tp" style alias or nullptr
  const char* alias;       // another long spelling, "tp-size", or nullptr
  const char* value_hint;  // "N", "NAME", nullptr for a flag
  const char* help;
  Result<void> (*apply)(EngineConfig* config, const std::string& value);
};
std::span<const EngineOption> engine_options();

// The option that `name` means, in any spelling: dashes or underscores, with or without leading dashes, alias, and for
// a flag "no-" in front (`negated` then). An unknown name is an error that names the nearest known one.
struct EngineOptionMatch {
  const EngineOption* option = nullptr;
  bool negated = false;
};
Result<EngineOptionMatch> find_engine_option(const std::string& name);

// `name` in any spelling. For a flag the value is "true" or "false"; "" is "true". Errors name the option.
Result<void> apply_engine_option(EngineConfig* config, const std::string& name, const std::string& value);

}  // namespace chorus
