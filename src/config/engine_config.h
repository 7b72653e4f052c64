// The configuration of an engine and of the fleet of replicas around it: values, defaults and one validate().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fields.h"
#include "base/result.h"
#include "config/engine_option.h"
#include "config/load_balancers.h"
#include "config/model_config.h"
#include "config/nearest_name.h"
#include "tensor/kv_dtype.h"

namespace chorus {

enum class SchedulingPolicy : std::uint8_t { fcfs, priority };
// What weights are packed as: the checkpoint's own format, floats of the dtype, or integers (tensor/linear_format.h).
enum class Quantization : std::uint8_t { automatic, none, int8, int4 };
// What keys and values are stored as: automatic is the dtype of the computation (tensor/kv_dtype.h).
enum class KvCacheDType : std::uint8_t { automatic, bfloat16, float32, int8 };
enum class LoadFormat : std::uint8_t { automatic, safetensors, gguf, dummy };
enum class LoadBalancerName : std::uint8_t {
#define CHORUS_ENUMERATOR(name) name,
  CHORUS_LOAD_BALANCERS(CHORUS_ENUMERATOR)
#undef CHORUS_ENUMERATOR
};
enum class AssignmentName : std::uint8_t { modulo, contiguous, priority, dynamic };
constexpr auto enumeration_of(SchedulingPolicy) {
  return NamedEnumeration{"a scheduling policy", SchedulingPolicy::priority, {"fcfs", "priority"}};
}
constexpr auto enumeration_of(LoadFormat) {
  return NamedEnumeration{"a load format", LoadFormat::dummy, {"auto", "safetensors", "gguf", "dummy"}};
}
constexpr auto enumeration_of(Quantization) {
  return NamedEnumeration{"a quantization", Quantization::int4, {"auto", "none", "int8", "int4"}};
}
constexpr auto enumeration_of(KvCacheDType) {
  return NamedEnumeration{"a KV cache dtype", KvCacheDType::int8, {"auto", "bfloat16", "float32", "int8"}};
}
constexpr auto enumeration_of(LoadBalancerName) {
#define CHORUS_SPELLING(name) #name,
#define CHORUS_LAST(name) last = LoadBalancerName::name;
  LoadBalancerName last{};
  CHORUS_LOAD_BALANCERS(CHORUS_LAST)
  return NamedEnumeration{"a load balancer", last, {CHORUS_LOAD_BALANCERS(CHORUS_SPELLING)}};
#undef CHORUS_SPELLING
#undef CHORUS_LAST
}
constexpr auto enumeration_of(AssignmentName) {
  return NamedEnumeration{"an assignment", AssignmentName::dynamic, {"modulo", "contiguous", "priority", "dynamic"}};
}

inline constexpr int ranks_max = 4096;
inline constexpr int tokens_max = 1 << 30;

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
  // A load balancer outside stands before this server and others like it (config/outer_balancer.h); one of them at
  // most.
  bool data_parallel_hybrid_lb = false;               // one door for this node's replicas
  bool data_parallel_external_lb = false;             // one door for one replica
  bool data_parallel_multi_port_external_lb = false;  // a door for each of this node's replicas
  bool all_remote = false;                            // this node has no replicas: others bring them all
  int nodes_per_replica = 1;                          // the workers of a replica are spread evenly over so many nodes
  int node_rank = 0;                                  // which part of its replicas this node has
  int launched_workers = 0;                           // workers that a launcher started on this node; 0: none did
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
  bool behind_outer_balancer() const {
    return data_parallel_hybrid_lb || data_parallel_external_lb || data_parallel_multi_port_external_lb;
  }
  // Ranks that a request to this process may go to: [door_begin(), door_end()).
  int door_begin() const { return behind_outer_balancer() ? data_parallel_start_rank : 0; }
  int door_end() const { return behind_outer_balancer() ? door_begin() + local_replicas() : data_parallel_size; }
  // The replicas of other servers are nothing to this one: none exchanges tensors with them.
  bool fleet_is_local() const { return behind_outer_balancer() && !replicas_step_together(); }
  // Ranks of this process's fleet.
  int fleet_begin() const { return fleet_is_local() ? door_begin() : 0; }
  int fleet_end() const { return fleet_is_local() ? door_end() : data_parallel_size; }
  bool is_local(int dp_rank) const {
    return dp_rank >= data_parallel_start_rank && dp_rank < data_parallel_start_rank + local_replicas();
  }
  bool several_nodes() const {
    return !fleet_is_local() && (local_replicas() < data_parallel_size || nodes_per_replica > 1);
  }
  // Workers on different nodes compute together: every worker of every replica comes to the head by itself, which
  // brings them together.
  bool workers_join_singly() const { return several_nodes() && (nodes_per_replica > 1 || replicas_step_together()); }
  // Where nodes meet.
  std::string head_address() const { return data_parallel_address.empty() ? "127.0.0.1" : data_parallel_address; }
  bool operator==(const ParallelConfig&) const = default;
  // clang-format off
  static constexpr auto fields(auto& self, auto&& visit) {
    using enum Agreement;
    using enum OnNodes;
    return visit(
      option(self.data_parallel_size, agreed, told, {.name = "data-parallel-size", .short_name = "-dp",
             .alias = "dp-size", .value_hint = "N", .min = 1, .max = ranks_max, .help = "replicas"}),
      option(self.tensor_parallel_size, agreed, told, {.name = "tensor-parallel-size", .short_name = "-tp",
             .alias = "tp-size", .value_hint = "N", .min = 1, .max = ranks_max,
             .help = "workers that share each layer"}),
      option(self.pipeline_parallel_size, agreed, told, {.name = "pipeline-parallel-size", .short_name = "-pp",
             .alias = "pp-size", .value_hint = "N", .min = 1, .max = ranks_max,
             .help = "workers that share the layers"}),
      option(self.decode_context_parallel_size, agreed, told, {.name = "decode-context-parallel-size",
             .short_name = "-dcp", .value_hint = "N", .min = 1, .max = ranks_max,
             .help = "workers that share the KV cache of each sequence"}),
      option(self.pipeline_layer_partition, agreed, told, {.name = "pp-layer-partition", .value_hint = "N,N",
             .help = "layers of each pipeline stage; if not given: equal numbers, or the closest to it"}),
      option(self.enable_expert_parallel, agreed, told, {.name = "enable-expert-parallel", .short_name = "-ep",
             .alias = "enable-ep", .help = "spread experts over all ranks"}),
      option(self.enable_expert_balancing, agreed, told, {.name = "enable-eplb",
             .help = "balance experts over the ranks"}),
      option(self.expert_balancing_config, agreed, told, {.name = "eplb-config", .value_hint = "JSON",
             .help = "how experts are balanced"}),
      option(self.data_parallel_size_local, own, told, {.name = "data-parallel-size-local", .short_name = "-dpl",
             .value_hint = "N", .max = ranks_max, .takes_none = true,
             .help = "replicas on this node; 0: all from --data-parallel-start-rank on"}),
      option(self.data_parallel_start_rank, own, told, {.name = "data-parallel-start-rank", .short_name = "-dpr",
             .value_hint = "N", .max = ranks_max, .takes_none = true, .help = "first replica on this node"}),
      option(self.data_parallel_rank, own, unsaid, {.name = "data-parallel-rank", .short_name = "-dpn",
             .value_hint = "N", .min = -1, .max = ranks_max, .takes_none = true, .of_serve = true,
             .help = "of the one replica that this server has, an outer load balancer being before all of them"}),
      option(self.data_parallel_address, own, told, {.name = "data-parallel-address", .short_name = "-dpa",
             .value_hint = "ADDRESS", .takes_none = true, .help = "of the first node"}),
      option(self.data_parallel_rpc_port, own, told, {.name = "data-parallel-rpc-port", .short_name = "-dpp",
             .value_hint = "PORT", .max = 65535, .takes_none = true,
             .help = "of the first node; 0: it chooses one and logs it"}),
      option(self.data_parallel_hybrid_lb, own, unsaid, {.name = "data-parallel-hybrid-lb", .short_name = "-dph",
             .of_serve = true, .help = "this node's replicas alone, an outer load balancer being before the nodes"}),
      option(self.data_parallel_external_lb, own, unsaid, {.name = "data-parallel-external-lb", .short_name = "-dpe",
             .of_serve = true, .help = "what --data-parallel-rank implies"}),
      option(self.data_parallel_multi_port_external_lb, own, unsaid, {.name = "data-parallel-multi-port-external-lb",
             .short_name = "-dpm", .of_serve = true,
             .help = "a port for each replica of this node, from --port on, for an outer load balancer"}),
      option(self.all_remote, own, unsaid, {}),
      option(self.nodes_per_replica, agreed, told, {.name = "nodes-per-replica", .value_hint = "N", .min = 1,
             .max = ranks_max, .help = "machines that a replica's workers are spread over"}),
      option(self.node_rank, own, told, {.name = "node-rank", .value_hint = "N", .max = ranks_max, .takes_none = true,
             .help = "which part of its replicas a --headless node has"}),
      option(self.launched_workers, own, unsaid, {}));
  }
  // clang-format on
};

// vLLM's own name for "without the model's sampling defaults" is that of the program.
inline std::string respell_generation_config(const std::string& value) {
  return value == "vllm" ? "chorus" : value;
}

// None is vLLM's word for what the checkpoint says.
inline std::string respell_quantization(const std::string& value) {
  return value == "None" || value == "null" ? "auto" : value;
}

// Everything a user may set for engines. Units are last in a name; 0 means "choose" where the comment says so.
struct EngineConfig {
  std::string model;                           // directory
  std::string tokenizer;                       // must be the model's directory; empty: the same
  std::string dtype = "auto";                  // auto | bfloat16 | float32
  std::string device = "auto";                 // auto | cpu | cuda | cuda-emulation
  std::string gpu_memory_utilization = "0.9";  // above 0, up to 1
  std::string cpu_isa = "auto";                // auto | amx-bf16 | avx512-bf16 | avx2-f32 | scalar
  int threads = 0;                             // per worker; 0: the process's cores / replicas on this node, at least 1
  std::string cpu_threads_bind = "auto";       // auto | "0-3|4-7" (a set a worker) | none
  int max_model_len = 0;                       // 0: the model's max_position_embeddings
  int block_size = 16;                         // tokens a KV block
  std::uint64_t kv_cache_bytes = 0;            // per worker; 0: from the free memory, at most 4 GiB
  int max_num_seqs = 256;
  int max_num_batched_tokens = 2048;
  bool enable_prefix_caching = true;
  SchedulingPolicy scheduling_policy = SchedulingPolicy::fcfs;
  std::uint64_t seed = 0;  // of dummy weights, and of requests that bring none
  LoadFormat load_format = LoadFormat::automatic;
  Quantization quantization = Quantization::automatic;
  KvCacheDType kv_cache_dtype = KvCacheDType::automatic;
  std::string generation_config = "auto";           // auto | chorus | directory
  bool trust_remote_code = false;                   // accepted; Chorus never runs a model's code
  std::string distributed_executor_backend = "mp";  // uni | mp | external_launcher | ray
  std::string data_parallel_backend = "mp";         // mp | ray
  LoadBalancerName load_balancer = LoadBalancerName::least_loaded;
  AssignmentName assignment = AssignmentName::dynamic;
  std::string ray_address;                   // RAY_ADDRESS: HOST:PORT or auto; empty: starts its own cluster
  std::string ray_pack_strategy = "strict";  // CHORUS_RAY_DP_PACK_STRATEGY: strict | fill | span
  // The model runs on GPUs, or an emulation of them.
  bool on_gpu() const { return device == "cuda" || device == "cuda-emulation"; }
  double gpu_memory_fraction() const;  // 0: gpu_memory_utilization is no number
  // Ray places the replicas; with headless: this node is one that Ray has placed.
  bool on_ray() const { return data_parallel_backend == "ray" || distributed_executor_backend == "ray"; }
  ParallelConfig parallel;
  int api_server_count = 1;
  // Of a server: one for each door where they are several.
  int front_ends() const {
    return parallel.data_parallel_multi_port_external_lb ? parallel.local_replicas() : api_server_count;
  }
  std::string fault_point;               // config/fault_point.h; empty: none
  bool headless = false;                 // engines without a front end
  std::string cluster_key_file;          // what nodes prove to each other that they belong together with; empty: none
  int engine_start_timeout_ms = 600000;  // from spawn to READY
  // Without progress or heartbeat an engine counts as dead. An engine says nothing during a step, and one of a large
  // model on a slow machine takes minutes; a crash is noticed at once by other means, only a hang waits for this.
  int engine_heartbeat_timeout_ms = 600000;
  int engine_restarts_max = 5;  // of a rank in a row, each before it was ready for long; then it is given up
  bool operator==(const EngineConfig&) const = default;
  // clang-format off
  static constexpr auto fields(auto& self, auto&& visit) {
    using enum Agreement;
    using enum OnNodes;
    return visit(
      option(self.model, digested, unsaid, {}),
      option(self.tokenizer, own, unsaid, {.name = "tokenizer", .value_hint = "DIR", .takes_none = true, .help = "the model's own directory"}),
      option(self.dtype, digested, told, {.name = "dtype", .value_hint = "NAME",
             .accepted = "auto, bfloat16, float32", .help = "type of weights, and of the KV cache if not told: auto, bfloat16, float32"}),
      option(self.device, digested, told, {.name = "device", .value_hint = "NAME", .accepted = "auto, cpu, cuda, cuda-emulation",
             .help = "auto (the CPU), cpu, cuda: one GPU a replica; cuda-emulation is for tests"}),
      option(self.gpu_memory_utilization, own, told, {.name = "gpu-memory-utilization", .value_hint = "FRACTION", .help =
             "part of a GPU's memory that the replicas on it use together"}),
      option(self.cpu_isa, digested, told, {.name = "cpu-isa", .value_hint = "NAME",
             .accepted = "auto, amx-bf16, avx512-bf16, avx2-f32, scalar",
             .help = "kernels: auto, amx-bf16, avx512-bf16, avx2-f32, scalar"}),
      option(self.threads, own, told, {.name = "threads", .value_hint = "N", .max = 4096, .help = "threads per worker; 0: its share of the cores"}),
      option(self.cpu_threads_bind, own, told, {.name = "cpu-threads-bind", .value_hint = "CORES",
             .help = "auto, none, or a core list for each worker: 0-3|4-7"}),
      option(self.max_model_len, agreed, told, {.name = "max-model-len", .value_hint = "N", .max = tokens_max,
             .takes_none = true, .help = "tokens of prompt and output together; default: the model's, or what the KV cache holds"}),
      option(self.block_size, agreed, told, {.name = "block-size", .value_hint = "N", .min = 16, .max = 1024,
             .takes_none = true, .help = "tokens per KV block, a multiple of 16"}),
      option(self.kv_cache_bytes, own, told, {.name = "kv-cache-memory", .alias = "kv-cache-memory-bytes",
             .value_hint = "BYTES", .is_bytes = true,
             .help = "KV cache per worker, such as 4GiB; 0: half of its share of the free memory, at most 4GiB"}),
      option(self.max_num_seqs, launched, told, {.name = "max-num-seqs", .value_hint = "N", .min = 1, .max = 1 << 16,
             .takes_none = true, .help = "sequences in one step of a replica"}),
      option(self.max_num_batched_tokens, launched, told, {.name = "max-num-batched-tokens", .value_hint = "N",
             .min = 1, .max = 1 << 20, .takes_none = true, .help = "tokens in one step of a replica"}),
      option(self.enable_prefix_caching, own, told, {.name = "enable-prefix-caching",
             .help = "share KV blocks of equal prompt beginnings (on; --no-enable-prefix-caching)"}),
      option(self.scheduling_policy, own, told, {.name = "scheduling-policy", .value_hint = "NAME", .help = "fcfs, priority"}),
      option(self.seed, launched, told, {.name = "seed", .value_hint = "N", .takes_none = true,
             .help = "of dummy weights, and of requests that bring none"}),
      option(self.load_format, digested, told, {.name = "load-format", .value_hint = "NAME",
             .help = "auto, safetensors, gguf, dummy (seeded random weights)"}),
      option(self.quantization, digested, told, {.name = "quantization", .short_name = "-q", .value_hint = "NAME",
             .respell = respell_quantization, .help = "weights as auto (GGUF: its blocks), none (--dtype), int8, int4"}),
      option(self.kv_cache_dtype, digested, told, {.name = "kv-cache-dtype", .value_hint = "NAME",
             .help = "keys and values as auto (--dtype), bfloat16, float32, int8 (a scale for each token and head)"}),
      option(self.generation_config, digested, as_path, {.name = "generation-config", .value_hint = "NAME",
             .accepted = "auto, chorus", .respell = respell_generation_config,
             .help = "sampling defaults: auto (the model's), chorus (none), or a directory"}),
      option(self.trust_remote_code, own, unsaid, {.name = "trust-remote-code", .help = "accepted; Chorus never runs a model's code"}),
      option(self.distributed_executor_backend, own, unsaid, {.name = "distributed-executor-backend",
             .value_hint = "NAME", .accepted = "uni, mp, external_launcher, ray", .takes_none = true,
             .help = "what starts workers: mp or uni (this program), external_launcher, ray"}),
      option(self.data_parallel_backend, own, told, {.name = "data-parallel-backend", .short_name = "-dpb",
             .value_hint = "NAME", .accepted = "mp, ray",
             .help = "what places replicas: mp (this program and --headless nodes), ray"}),
      option(self.load_balancer, own, unsaid, {.name = "load-balancer", .value_hint = "NAME",
             .help = "which replica is next where --assignment is dynamic:" CHORUS_LOAD_BALANCERS(CHORUS_WORD)}),
      option(self.assignment, own, unsaid, {.name = "assignment", .value_hint = "NAME",
             .help = "of prompts to replicas: modulo, contiguous, priority, dynamic; under a launcher always modulo"}),
      option(self.ray_address, own, unsaid, {}),
      option(self.ray_pack_strategy, own, unsaid, {}),
      self.parallel,
      option(self.api_server_count, own, unsaid, {.name = "api-server-count", .short_name = "-asc", .value_hint = "N",
             .min = 1, .max = 1024, .of_serve = true, .help = "front-end processes"}),
      option(self.fault_point, own, unsaid, {.name = "fault-point", .value_hint = "WORKER@NAME:N",
             .help = "for tests: where a worker is killed"}),
      option(self.headless, own, told, {.name = "headless", .of_serve = true, .help = "engines without a front end"}),
      option(self.cluster_key_file, own, as_path, {.name = "cluster-key-file", .value_hint = "FILE", .takes_none = true, .help = "the secret of the nodes"}),
      option(self.engine_start_timeout_ms, own, told, {.name = "engine-start-timeout-ms", .value_hint = "MS",
             .min = 1, .help = "from an engine's start until it is ready"}),
      option(self.engine_heartbeat_timeout_ms, own, told, {.name = "engine-heartbeat-timeout-ms", .value_hint = "MS",
             .min = 1, .help = "silence after which an engine counts as dead"}),
      option(self.engine_restarts_max, own, told, {.name = "engine-restarts-max", .value_hint = "N",
             .max = 1000, .help = "restarts in a row after which a rank is given up (5)"}));
  }
  // clang-format on
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
// What --quantization means for this model: none where it is auto and the checkpoint has no blocks, or on a GPU.
Quantization compute_quantization(const EngineConfig& config, const ModelConfig& model);
const char* name_of(Quantization quantization);
// What --kv-cache-dtype means for a computation in `dtype`.
KvDType compute_kv_dtype(const EngineConfig& config, DType dtype);
const char* name_of(KvCacheDType dtype);

// "4GiB", "512MiB", "1.5G", "1000000": bytes. K, M, G, T (also as KiB ...) are powers of 1024; KB, MB, GB, TB of 1000.
Result<std::uint64_t> parse_bytes(const std::string& text);

// Engine options as the CLI, workflow JSON and the server name them: one readable table, which is the lists of
// fields above, and what vLLM has and Chorus accepts without a use for it (enforce_eager, ...).
// Applying "max_model_len" or "max-model-len" with a value sets the field; an unknown name is an error that names the
// nearest known one.
std::span<const EngineOption> engine_options();

// The option that `name` means, in any spelling: dashes or underscores, with or without leading dashes, alias, and for
// a flag "no-" in front (`negated` then). An unknown name is an error that names the nearest known one.
struct EngineOptionMatch {
  const EngineOption* option = nullptr;
  bool negated = false;
};
Result<EngineOptionMatch> find_engine_option(const std::string& name);

// Names and values of the options with this agreement, in the order of the table.
std::vector<std::pair<std::string, std::string>> options_with(const EngineConfig& config, Agreement agreement);

// "--name=value" of each option that nodes are told and that is not at its default.
std::vector<std::string> options_for_nodes(const EngineConfig& config);

// `name` in any spelling. For a flag the value is "true" or "false"; "" is "true". Errors name the option.
Result<void> apply_engine_option(EngineConfig* config, const std::string& name, const std::string& value);

}  // namespace chorus
