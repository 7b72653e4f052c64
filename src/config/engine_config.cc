#include "config/engine_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "base/numerics.h"
#include "config/eplb_config.h"
#include "config/fault_point.h"
#include "config/node.h"
#include "config/pipeline_partition.h"
#include "config/reduction_segments.h"
#include "gguf/gguf_file.h"

namespace chorus {
namespace {

Error refuse(const char* option, const std::string& value, const std::string& accepted) {
  return fail(ErrorCode::invalid_argument, "--{} is {}; accepted: {}", option, value, accepted);
}

Result<void> check_range(const char* option, std::int64_t value, std::int64_t min, std::int64_t max) {
  if (value >= min && value <= max) return {};
  return refuse(option, fmt::format("{}", value), fmt::format("{} to {}", min, max));
}

// What the option's row says of its field alone.
template <typename T>
Result<void> check_field(const EngineOption& /*option*/, const T& /*field*/) {
  static_assert(std::is_same_v<T, bool> || std::is_same_v<T, std::uint64_t> || std::is_enum_v<T>);
  return {};
}
Result<void> check_field(const EngineOption& option, const int& field) {
  return check_range(option.name, field, option.min, option.max);
}
Result<void> check_field(const EngineOption& option, const std::string& field) {
  if (option.accepted == nullptr || option.on_nodes == OnNodes::as_path || is_accepted_word(option, field)) return {};
  return refuse(option.name, fmt::format("\"{}\"", field.substr(0, 100)), option.accepted);
}

Result<void> check_rows(const EngineConfig& config) {
  Result<void> checked;
  for_each_option(config, [&](const auto& field, const EngineOption& option) {
    if (checked.ok() && option.name != nullptr) checked = check_field(option, field);
  });
  return checked;
}

Result<void> check_texts(const EngineConfig& config) {
  if (config.cpu_threads_bind != "auto" && config.cpu_threads_bind != "none") {
    const auto sets = parse_cpu_sets(config.cpu_threads_bind);
    if (!sets) return sets.error();
  }
  if (!(config.gpu_memory_fraction() > 0 && config.gpu_memory_fraction() <= 1)) {
    return refuse("gpu-memory-utilization", fmt::format("\"{}\"", config.gpu_memory_utilization.substr(0, 100)),
                  "a number above 0, up to 1");
  }
  if (config.generation_config.empty()) return refuse("generation-config", "empty", "auto, chorus or a directory");
  if (!config.tokenizer.empty() && config.tokenizer != config.model) {
    return refuse("tokenizer", fmt::format("\"{}\"", config.tokenizer.substr(0, 200)),
                  "the model's own directory (Chorus reads tokenizer.json beside config.json)");
  }
  CHORUS_TRY_VOID(FaultPoint::parse(config.fault_point));
  CHORUS_TRY_VOID(parse_eplb_config(config.parallel.expert_balancing_config));
  return {};
}

// The bounds that follow from other sizes.
Result<void> check_sizes(const EngineConfig& config) {
  const ParallelConfig& parallel = config.parallel;
  if (config.block_size % 16 != 0)
    return refuse("block-size", fmt::format("{}", config.block_size), "a multiple of 16");
  const std::int64_t world = std::int64_t{parallel.data_parallel_size} * parallel.tensor_parallel_size *
                             parallel.pipeline_parallel_size * parallel.decode_context_parallel_size;
  constexpr std::int64_t world_max = 65536;
  if (world > world_max) {
    return fail(ErrorCode::invalid_argument,
                "data-parallel-size {} x pipeline {} x decode context {} x tensor {} is more than {} workers",
                parallel.data_parallel_size, parallel.pipeline_parallel_size, parallel.decode_context_parallel_size,
                parallel.tensor_parallel_size, world_max);
  }
  CHORUS_TRY_VOID(
      check_range("data-parallel-size-local", parallel.data_parallel_size_local, 0, parallel.data_parallel_size));
  CHORUS_TRY_VOID(
      check_range("data-parallel-start-rank", parallel.data_parallel_start_rank, 0, parallel.data_parallel_size - 1));
  CHORUS_TRY_VOID(check_range("data-parallel-rank", parallel.data_parallel_rank, -1, parallel.data_parallel_size - 1));
  if (parallel.replica_size() % parallel.nodes_per_replica != 0) {
    return fail(ErrorCode::invalid_argument,
                "--nodes-per-replica {} does not divide the {} workers of a replica (tensor {} x pipeline {} x decode "
                "context {})",
                parallel.nodes_per_replica, parallel.replica_size(), parallel.tensor_parallel_size,
                parallel.pipeline_parallel_size, parallel.decode_context_parallel_size);
  }
  return check_range("node-rank", parallel.node_rank, 0, parallel.nodes_per_replica - 1);
}

// A sequence's keys lie on the context-parallel workers in turn, a partition of attention at a time
// (base/numerics.h): whole blocks.
Result<void> check_context_parallel(const EngineConfig& config) {
  if (config.parallel.decode_context_parallel_size == 1 || attention_partition_keys % config.block_size == 0) return {};
  return fail(
      ErrorCode::invalid_argument,
      "--block-size is {}; with --decode-context-parallel-size {} accepted: 16, 32, 64, 128, 256 (a worker holds "
      "{} tokens of a sequence at a time)",
      config.block_size, config.parallel.decode_context_parallel_size, attention_partition_keys);
}

// Ray decides which node runs a replica: what this machine would decide has no meaning then.
Result<void> check_ray(const EngineConfig& config) {
  const ParallelConfig& parallel = config.parallel;
  if (config.distributed_executor_backend == "external_launcher") {
    return fail(ErrorCode::invalid_argument,
                "--data-parallel-backend ray and --distributed-executor-backend external_launcher: one of them starts "
                "the ranks; leave "
                "the other out");
  }
  if (config.ray_pack_strategy != "strict" && config.ray_pack_strategy != "fill" &&
      config.ray_pack_strategy != "span") {
    return fail(ErrorCode::invalid_argument, "CHORUS_RAY_DP_PACK_STRATEGY is \"{}\"; accepted: strict, fill, span",
                config.ray_pack_strategy.substr(0, 100));
  }
  if (parallel.nodes_per_replica > 1) {
    return fail(ErrorCode::invalid_argument,
                "--nodes-per-replica is {}: Ray places the workers; leave it out, and set "
                "CHORUS_RAY_DP_PACK_STRATEGY=span where a rank's workers may be on several nodes",
                parallel.nodes_per_replica);
  }
  if (config.ray_address.starts_with("ray://")) {
    return fail(ErrorCode::invalid_argument,
                "RAY_ADDRESS is \"{}\": Ray's C++ API has no client mode; run chorus on a node of the cluster, with "
                "RAY_ADDRESS=auto or "
                "HOST:PORT",
                config.ray_address.substr(0, 200));
  }
  if (config.cpu_threads_bind != "auto" && config.cpu_threads_bind != "none") {
    return fail(ErrorCode::invalid_argument,
                "--cpu-threads-bind \"{}\" names cores of this machine, and Ray chooses the nodes; leave it out",
                config.cpu_threads_bind.substr(0, 100));
  }
  if (parallel.data_parallel_start_rank != 0) {
    return fail(ErrorCode::invalid_argument, "--data-parallel-start-rank is {}: Ray places all ranks; leave it out",
                parallel.data_parallel_start_rank);
  }
  return {};
}

// The replicas of this node among those of all: the head has the first ones, each other node gives its start rank.
Result<void> check_nodes(const EngineConfig& config) {
  const ParallelConfig& parallel = config.parallel;
  if (config.on_ray() && !config.headless) return check_ray(config);
  const int first = parallel.data_parallel_start_rank;
  if (first + parallel.local_replicas() > parallel.data_parallel_size) {
    return fail(ErrorCode::invalid_argument,
                "--data-parallel-start-rank {} and --data-parallel-size-local {} go beyond --data-parallel-size {}",
                first, parallel.local_replicas(), parallel.data_parallel_size);
  }
  if (parallel.behind_outer_balancer()) return {};  // settle_outer_balancer() has said the rest
  if (config.headless && first == 0 && parallel.node_rank == 0 && !config.on_ray()) {
    if (parallel.nodes_per_replica > 1) {
      return fail(ErrorCode::invalid_argument,
                  "--headless has neither --node-rank nor --data-parallel-start-rank: the first part of rank 0 is on "
                  "the node with the front end; give the part that this node has, --node-rank 1 to {}",
                  parallel.nodes_per_replica - 1);
    }
    return fail(ErrorCode::invalid_argument,
                "--headless has no --data-parallel-start-rank: rank 0 is on the node with the front end; give this "
                "node's first rank, 1 to {}",
                parallel.data_parallel_size - 1);
  }
  if (!config.headless && parallel.node_rank != 0) {
    return fail(ErrorCode::invalid_argument,
                "--node-rank is {}: the node with the front end has part 0 of its replicas; give --headless on the "
                "others",
                parallel.node_rank);
  }
  if (!config.headless && first != 0) {
    return fail(
        ErrorCode::invalid_argument,
        "--data-parallel-start-rank is {}: the node with the front end has rank 0; give --headless on the others",
        first);
  }
  if (!parallel.several_nodes() && !config.headless) {
    if (is_loopback(parallel.head_address())) return {};
    return fail(ErrorCode::invalid_argument,
                "--data-parallel-address is {} and all {} replicas are on this machine; give "
                "--data-parallel-size-local, or leave it out",
                parallel.data_parallel_address, parallel.data_parallel_size);
  }
  if (parallel.workers_join_singly()) {
    const std::string host = parallel.head_address();
    if (host == "0.0.0.0" || host == "::") {
      return fail(ErrorCode::invalid_argument,
                  "--data-parallel-address is {}: workers that compute together need the address by which the other "
                  "machines reach this one",
                  host);
    }
    constexpr int world_max = 1024;
    const int world = parallel.replicas_step_together() ? parallel.world_size() : parallel.replica_size();
    if (world > world_max) {
      return fail(ErrorCode::invalid_argument, "{} workers compute together over several machines; at most {} can",
                  world, world_max);
    }
  }
  if (config.headless && parallel.data_parallel_rpc_port == 0) {
    return fail(ErrorCode::invalid_argument,
                "--headless needs --data-parallel-rpc-port: the port of the first node, which logs it at its start");
  }
  if (config.cluster_key_file.empty() && !is_loopback(parallel.head_address())) {
    return missing_cluster_key(
        fmt::format("--data-parallel-address is {}, which other machines reach", parallel.data_parallel_address));
  }
  return {};
}

// What a configuration may name and this version does not run. The one place: a feature that arrives loses its line
// here.
Result<void> check_supported(const EngineConfig& config) {
  const ParallelConfig& parallel = config.parallel;
  const struct {
    bool asked;
    const char* option;
    const char* reason;
  } table[] = {
      {config.on_gpu() && (parallel.replica_size() > 1 || parallel.replicas_step_together()), "device cuda",
       "computes with one GPU a replica: leave out tensor, pipeline, context and expert parallelism"},
      {config.on_gpu() && config.dtype == "float32", "dtype float32",
       "is not computed on GPUs: give --dtype bfloat16, or --device cpu"},
      {config.on_gpu() && (config.quantization == Quantization::int8 || config.quantization == Quantization::int4),
       "quantization", "to integers is computed on CPUs alone: leave it out, or give --device cpu"},
      {config.on_gpu() && config.kv_cache_dtype != KvCacheDType::automatic, "kv-cache-dtype",
       "is auto on GPUs, whose kernels read keys and values in bfloat16: leave it out, or give --device cpu"},
      {parallel.several_nodes() && config.distributed_executor_backend == "external_launcher",
       parallel.nodes_per_replica > 1 ? "nodes-per-replica under external_launcher"
                                      : "data-parallel-size-local below data-parallel-size under external_launcher",
       "has no meaning, the launcher places every rank; leave it out"},
      {config.api_server_count > 1 && config.headless, "api-server-count",
       "asks for front ends, and a node with --headless has none: leave one of them out"},
      {config.api_server_count > 1 && (parallel.several_nodes() || config.on_ray()), "api-server-count",
       "is for replicas of this machine: where others are elsewhere the server has one front end"},
  };
  for (const auto& line : table) {
    if (line.asked) return fail(ErrorCode::invalid_argument, "--{} {}", line.option, line.reason);
  }
  return {};
}

// A tensor-parallel rank owns whole query heads, whole kv heads or a copy of one, and whole segments of every
// contraction that is cut.
bool tensor_parallel_fits(const ModelConfig& model, int size) {
  const int kv = model.num_key_value_heads;
  const auto segments_divide = [size](int units) { return units <= 0 || reduction_segments(units) % size == 0; };
  return model.num_attention_heads % size == 0 && kv > 0 && (kv % size == 0 || size % kv == 0) &&
         segments_divide(model.num_attention_heads) && segments_divide(model.intermediate_size) &&
         segments_divide(model.num_experts > 0 ? model.moe_intermediate_size : 0);
}

// What MODEL is says its name; the option may only agree.
Result<void> check_load_format(const EngineConfig& config) {
  const bool file = is_gguf(config.model);
  if (config.load_format == LoadFormat::safetensors && file) {
    return fail(ErrorCode::invalid_argument, "--load-format safetensors, but {} is a GGUF file", config.model);
  }
  if (config.load_format == LoadFormat::gguf && !file) {
    return fail(ErrorCode::invalid_argument, "--load-format gguf takes a file NAME.gguf; MODEL is {}", config.model);
  }
  return {};
}

}  // namespace

Result<void> validate(const EngineConfig& config) {
  CHORUS_TRY_VOID(check_rows(config));
  CHORUS_TRY_VOID(check_texts(config));
  CHORUS_TRY_VOID(check_sizes(config));
  if (config.parallel.enable_expert_balancing && !config.parallel.enable_expert_parallel) {
    return fail(ErrorCode::invalid_argument,
                "--enable-eplb moves experts between expert-parallel ranks: give --enable-expert-parallel too");
  }
  CHORUS_TRY_VOID(check_load_format(config));
  CHORUS_TRY_VOID(check_context_parallel(config));
  CHORUS_TRY_VOID(check_nodes(config));
  return check_supported(config);
}

Result<void> validate(const EngineConfig& config, const ModelConfig& model) {
  const int limit = model_len_limit(model);
  if (config.max_model_len > limit) {
    return fail(ErrorCode::invalid_argument,
                "--max-model-len is {}; the positions of {} reach {} (max_position_embeddings)", config.max_model_len,
                model.directory, limit);
  }
  const ParallelConfig& parallel = config.parallel;
  CHORUS_TRY_VOID(
      pipeline_partition(model.num_hidden_layers, parallel.pipeline_parallel_size, parallel.pipeline_layer_partition));
  const int size = parallel.tensor_parallel_size;
  if (size > 1 && !tensor_parallel_fits(model, size)) {
    std::string sizes;
    for (int candidate = 1; candidate <= model.num_attention_heads; ++candidate) {
      if (tensor_parallel_fits(model, candidate)) sizes += fmt::format("{}{}", sizes.empty() ? "" : ", ", candidate);
    }
    return fail(
        ErrorCode::invalid_argument,
        "--tensor-parallel-size {} does not cut {} attention heads, {} kv heads and {} intermediate columns into whole "
        "units (at most 8 ranks, a power of two); these do: {}",
        size, model.num_attention_heads, model.num_key_value_heads,
        model.num_experts > 0 ? model.moe_intermediate_size : model.intermediate_size, sizes);
  }
  return {};
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host.starts_with("127.") || host == "::1";
}

Error missing_cluster_key(const std::string& why) {
  return fail(
      ErrorCode::invalid_argument,
      "{}, and there is no --cluster-key-file; make one with: (umask 077; openssl rand -hex 32 > FILE), and give "
      "it on every node",
      why);
}

EngineConfig settled(EngineConfig config, const ModelConfig& model) {
  if (model.num_experts == 0) config.parallel.enable_expert_parallel = config.parallel.enable_expert_balancing = false;
  if (config.parallel.expert_parallel_size() == 1) config.parallel.enable_expert_balancing = false;
  return config;
}

double EngineConfig::gpu_memory_fraction() const {
  double fraction = 0;
  const char* end = gpu_memory_utilization.data() + gpu_memory_utilization.size();
  const auto parsed = std::from_chars(gpu_memory_utilization.data(), end, fraction);
  return parsed.ec == std::errc() && parsed.ptr == end ? fraction : 0;
}

DType compute_dtype(const EngineConfig& config, const ModelConfig& model) {
  if (config.on_gpu()) return DType::bfloat16;
  if (config.dtype == "bfloat16") return DType::bfloat16;
  if (config.dtype == "float32") return DType::float32;
  return model.dtype == DType::bfloat16 ? DType::bfloat16 : DType::float32;
}

Quantization compute_quantization(const EngineConfig& config, const ModelConfig& model) {
  if (config.on_gpu()) return Quantization::none;
  const bool has_none = std::ranges::all_of(
      model.stored_formats, [](const StoredFormat& stored) { return stored.kind == LinearFormat::plain; });
  return config.quantization == Quantization::automatic && has_none ? Quantization::none : config.quantization;
}

const char* name_of(Quantization quantization) {
  return enumeration_of(Quantization{}).names[static_cast<std::size_t>(quantization)];
}

KvDType compute_kv_dtype(const EngineConfig& config, DType dtype) {
  switch (config.kv_cache_dtype) {
    case KvCacheDType::automatic:
      break;
    case KvCacheDType::bfloat16:
      return KvDType::bfloat16;
    case KvCacheDType::float32:
      return KvDType::float32;
    case KvCacheDType::int8:
      return KvDType::int8;
  }
  return kv_dtype_of(dtype);
}

const char* name_of(KvCacheDType dtype) {
  return enumeration_of(KvCacheDType{}).names[static_cast<std::size_t>(dtype)];
}

Result<std::uint64_t> parse_bytes(const std::string& text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr std::array byte_units = {Unit{"", 1},       Unit{"B", 1},        Unit{"K", 1024},   Unit{"KiB", 1024},
                                     Unit{"M", 0x1p20}, Unit{"MiB", 0x1p20}, Unit{"G", 0x1p30}, Unit{"GiB", 0x1p30},
                                     Unit{"T", 0x1p40}, Unit{"TiB", 0x1p40}, Unit{"KB", 1e3},   Unit{"kB", 1e3},
                                     Unit{"MB", 1e6},   Unit{"GB", 1e9},     Unit{"TB", 1e12}};
  const Error error =
      fail(ErrorCode::invalid_argument, "\"{}\" is no number of bytes; accepted: such as 4GiB, 512MiB, 1.5G, 1000000",
           text.substr(0, 100));
  const char* end = text.data() + text.size();
  double number = 0;
  const auto parsed = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (parsed.ec != std::errc() || !(number >= 0)) return error;
  std::string_view unit(parsed.ptr, static_cast<std::size_t>(end - parsed.ptr));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const Unit& known : byte_units) {
    if (unit != known.name) continue;
    const double bytes = number * known.bytes;
    if (!(bytes < 0x1p63)) return error;
    return static_cast<std::uint64_t>(bytes);
  }
  return error;
}

}  // namespace chorus
