// The table of engine options. To add one, add its line; to make an accepted one effective, change its last column.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "config/engine_config.h"

namespace chorus {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

Error not_accepted(const std::string& value, const std::string& accepted) {
  return fail(ErrorCode::invalid_argument, "\"{}\"; accepted: {}", value.substr(0, 100), accepted);
}

template <typename Integer>
Result<void> set_integer(Integer* field, const std::string& value) {
  const char* begin = value.data() + (value.starts_with('+') ? 1 : 0);
  const char* end = value.data() + value.size();
  Integer number{};
  const auto parsed = std::from_chars(begin, end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return not_accepted(value, std::is_signed_v<Integer> ? "an integer" : "an integer from 0 on");
  }
  *field = number;
  return {};
}

Result<bool> parse_flag(const std::string& value) {
  const std::string text = lower(value);
  if (text.empty() || text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off") return false;
  return not_accepted(value, "true or false");
}

Result<void> set_flag(bool* field, const std::string& value) {
  CHORUS_TRY(*field, parse_flag(value));
  return {};
}

template <typename Enum, std::size_t count>
Result<void> set_name(Enum* field, const std::string& value, const std::pair<const char*, Enum> (&names)[count]) {
  std::string accepted;
  for (const auto& [name, item] : names) {
    if (value == name) {
      *field = item;
      return {};
    }
    accepted += (accepted.empty() ? "" : ", ") + std::string(name);
  }
  return not_accepted(value, accepted);
}

bool is_none(const std::string& value) {
  const std::string text = lower(value);
  return text.empty() || text == "none" || text == "null";
}

using Config = EngineConfig*;
using Value = const std::string&;

Result<void> ignore(Config, Value) {
  return {};
}
Result<void> ignore_flag(Config, Value value) {
  const auto flag = parse_flag(value);
  return flag ? Result<void>() : Result<void>(flag.error());
}
Result<void> ignore_integer(Config, Value value) {
  std::int64_t number = 0;
  return is_none(value) ? Result<void>() : set_integer(&number, value);
}
Result<void> ignore_number(Config, Value value) {
  double number = 0;
  const char* end = value.data() + value.size();
  const auto parsed = std::from_chars(value.data(), end, number);
  if (parsed.ec == std::errc() && parsed.ptr == end && std::isfinite(number) && number >= 0) return {};
  return not_accepted(value, "a number from 0 on");
}
Result<void> ignore_fraction(Config config, Value value) {
  CHORUS_TRY_VOID(ignore_number(config, value));
  double number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number);
  if (number > 0 && number <= 1) return {};
  return not_accepted(value, "a number above 0, up to 1");
}
Result<void> only_none(Config, Value value) {
  return is_none(value) ? Result<void>()
                        : Result<void>(not_accepted(value, "none (Chorus runs float32 and bfloat16 weights)"));
}
Result<void> only_false(Config, Value value) {
  CHORUS_TRY(const bool flag, parse_flag(value));
  return flag ? Result<void>(not_accepted(value, "false (it would change the model's output)")) : Result<void>();
}
Result<void> only_tokenizer_mode(Config, Value value) {
  const bool known = value == "auto" || value == "slow" || value == "fast" || value == "hf";
  return known ? Result<void>()
               : Result<void>(not_accepted(value, "auto, hf, fast, slow (all are Chorus' own tokenizer)"));
}
Result<void> only_auto(Config, Value value) {
  return value == "auto" ? Result<void>() : Result<void>(not_accepted(value, "auto (the model's dtype)"));
}

Result<void> set_bytes(std::uint64_t* field, Value value) {
  CHORUS_TRY(*field, parse_bytes(value));
  return {};
}

constexpr std::pair<const char*, SchedulingPolicy> kPolicies[] = {{"fcfs", SchedulingPolicy::fcfs},
                                                                  {"priority", SchedulingPolicy::priority}};
constexpr std::pair<const char*, LoadFormat> kLoadFormats[] = {
    {"auto", LoadFormat::automatic}, {"safetensors", LoadFormat::safetensors}, {"dummy", LoadFormat::dummy}};
constexpr std::pair<const char*, LoadBalancerName> kBalancers[] = {{"round_robin", LoadBalancerName::round_robin},
                                                                   {"least_loaded", LoadBalancerName::least_loaded}};
constexpr std::pair<const char*, AssignmentName> kAssignments[] = {{"modulo", AssignmentName::modulo},
                                                                   {"contiguous", AssignmentName::contiguous},
                                                                   {"priority", AssignmentName::priority},
                                                                   {"dynamic", AssignmentName::dynamic}};

// What a JSON null or Python's None leaves as it was; a seed of None is 0, which is the default.
Result<void> set_optional_integer(int* field, Value value) {
  return is_none(value) ? Result<void>() : set_integer(field, value);
}

constexpr const char* kNoEffect = "accepted as vLLM has it; no effect";

// clang-format off
constexpr EngineOption kOptions[] = {
    // Model and numerics
    {"dtype", nullptr, nullptr, "NAME", "arithmetic's storage: auto, bfloat16, float32", [](Config c, Value v) -> Result<void> { c->dtype = v; return {}; }},
    {"device", nullptr, nullptr, "NAME", "auto, cpu, cuda", [](Config c, Value v) -> Result<void> { c->device = v; return {}; }},
    {"cpu-isa", nullptr, nullptr, "NAME", "kernels: auto, amx-bf16, avx512-bf16, avx2-f32, scalar", [](Config c, Value v) -> Result<void> { c->cpu_isa = v; return {}; }},
    {"threads", nullptr, nullptr, "N", "threads a worker; 0: its share of the cores", [](Config c, Value v) { return set_integer(&c->threads, v); }},
    {"cpu-threads-bind", nullptr, nullptr, "CORES", "auto, none, or a core list for each replica: 0-3|4-7", [](Config c, Value v) -> Result<void> { c->cpu_threads_bind = v; return {}; }},
    {"load-format", nullptr, nullptr, "NAME", "auto, safetensors, dummy (seeded random weights)", [](Config c, Value v) { return set_name(&c->load_format, v, kLoadFormats); }},
    {"generation-config", nullptr, nullptr, "NAME", "sampling defaults: auto (the model's), chorus (none), or a directory", [](Config c, Value v) -> Result<void> { c->generation_config = v == "vllm" ? "chorus" : v; return {}; }},
    {"trust-remote-code", nullptr, nullptr, nullptr, "accepted; Chorus never runs a model's code", [](Config c, Value v) { return set_flag(&c->trust_remote_code, v); }},
    {"fault-point", nullptr, nullptr, "WORKER@NAME:N", "for tests: where a worker is killed", [](Config c, Value v) { c->fault_point = v; return Result<void>(); }},
    {"tokenizer", nullptr, nullptr, "DIR", "the model's own directory", [](Config c, Value v) -> Result<void> { c->tokenizer = is_none(v) ? "" : v; return {}; }},
    // Scheduling and memory
    {"max-model-len", nullptr, nullptr, "N", "tokens of prompt and output together; default: the model's, or as many as the KV cache holds", [](Config c, Value v) { return set_optional_integer(&c->max_model_len, v); }},
    {"block-size", nullptr, nullptr, "N", "tokens a KV block, a multiple of 16", [](Config c, Value v) { return set_optional_integer(&c->block_size, v); }},
    {"kv-cache-memory", nullptr, "kv-cache-memory-bytes", "BYTES", "KV cache a worker, such as 8GiB; default: half of the free memory, shared by the workers, at most 4GiB each", [](Config c, Value v) { return set_bytes(&c->kv_cache_bytes, v); }},
    {"max-num-seqs", nullptr, nullptr, "N", "sequences in one step", [](Config c, Value v) { return set_optional_integer(&c->max_num_seqs, v); }},
    {"max-num-batched-tokens", nullptr, nullptr, "N", "tokens in one step", [](Config c, Value v) { return set_optional_integer(&c->max_num_batched_tokens, v); }},
    {"enable-prefix-caching", nullptr, nullptr, nullptr, "share KV blocks of equal prompt beginnings", [](Config c, Value v) { return set_flag(&c->enable_prefix_caching, v); }},
    {"scheduling-policy", nullptr, nullptr, "NAME", "fcfs, priority", [](Config c, Value v) { return set_name(&c->scheduling_policy, v, kPolicies); }},
    {"seed", nullptr, nullptr, "N", "of dummy weights, and of requests that bring none", [](Config c, Value v) { return is_none(v) ? Result<void>() : set_integer(&c->seed, v); }},
    {"engine-start-timeout-ms", nullptr, nullptr, "MS", "from an engine's start until it is ready", [](Config c, Value v) { return set_integer(&c->engine_start_timeout_ms, v); }},
    {"engine-heartbeat-timeout-ms", nullptr, nullptr, "MS", "silence after which an engine counts as dead", [](Config c, Value v) { return set_integer(&c->engine_heartbeat_timeout_ms, v); }},
    // Parallelism
    {"data-parallel-size", "-dp", "dp-size", "N", "replicas", [](Config c, Value v) { return set_integer(&c->parallel.data_parallel_size, v); }},
    {"tensor-parallel-size", "-tp", "tp-size", "N", "workers that share each layer", [](Config c, Value v) { return set_integer(&c->parallel.tensor_parallel_size, v); }},
    {"pipeline-parallel-size", "-pp", "pp-size", "N", "workers that share the layers", [](Config c, Value v) { return set_integer(&c->parallel.pipeline_parallel_size, v); }},
    {"pp-layer-partition", nullptr, nullptr, "N,N", "layers of each pipeline stage; nothing: as even as can be", [](Config c, Value v) { c->parallel.pipeline_layer_partition = v; return Result<void>(); }},
    {"decode-context-parallel-size", "-dcp", nullptr, "N", "workers that share the KV cache", [](Config c, Value v) { return set_integer(&c->parallel.decode_context_parallel_size, v); }},
    {"enable-expert-parallel", "-ep", "enable-ep", nullptr, "spread experts over all ranks", [](Config c, Value v) { return set_flag(&c->parallel.enable_expert_parallel, v); }},
    {"enable-eplb", nullptr, nullptr, nullptr, "balance experts over the ranks", [](Config c, Value v) { return set_flag(&c->parallel.enable_expert_balancing, v); }},
    {"eplb-config", nullptr, nullptr, "JSON", "how experts are balanced", [](Config c, Value v) -> Result<void> { c->parallel.expert_balancing_config = v; return {}; }},
    {"distributed-executor-backend", nullptr, nullptr, "NAME", "uni, mp, external_launcher, ray", [](Config c, Value v) -> Result<void> { if (!is_none(v)) c->distributed_executor_backend = v; return {}; }},
    {"data-parallel-backend", "-dpb", nullptr, "NAME", "mp, ray", [](Config c, Value v) -> Result<void> { c->data_parallel_backend = v; return {}; }},
    {"data-parallel-size-local", "-dpl", nullptr, "N", "replicas on this node; 0: all", [](Config c, Value v) { return set_optional_integer(&c->parallel.data_parallel_size_local, v); }},
    {"data-parallel-start-rank", "-dpr", nullptr, "N", "first rank on this node", [](Config c, Value v) { return set_optional_integer(&c->parallel.data_parallel_start_rank, v); }},
    {"data-parallel-rank", "-dpn", nullptr, "N", "the one rank of this process, behind an outer balancer", [](Config c, Value v) { return set_optional_integer(&c->parallel.data_parallel_rank, v); }},
    {"data-parallel-address", "-dpa", nullptr, "ADDRESS", "of the first node", [](Config c, Value v) -> Result<void> { c->parallel.data_parallel_address = is_none(v) ? "" : v; return {}; }},
    {"data-parallel-rpc-port", "-dpp", nullptr, "PORT", "0: chosen and published", [](Config c, Value v) { return set_optional_integer(&c->parallel.data_parallel_rpc_port, v); }},
    {"nodes-per-replica", nullptr, nullptr, "N", "machines that a replica's workers are spread over", [](Config c, Value v) { return set_integer(&c->parallel.nodes_per_replica, v); }},
    {"node-rank", nullptr, nullptr, "N", "which part of its replicas a --headless node has", [](Config c, Value v) { return set_optional_integer(&c->parallel.node_rank, v); }},
    {"data-parallel-hybrid-lb", "-dph", nullptr, nullptr, "balance inside a node, an outer balancer between nodes", [](Config c, Value v) { return set_flag(&c->parallel.data_parallel_hybrid_lb, v); }},
    {"data-parallel-external-lb", "-dpe", nullptr, nullptr, "an outer balancer sees every rank", [](Config c, Value v) { return set_flag(&c->parallel.data_parallel_external_lb, v); }},
    {"api-server-count", "-asc", nullptr, "N", "front-end processes", [](Config c, Value v) { return set_integer(&c->api_server_count, v); }},
    {"headless", nullptr, nullptr, nullptr, "engines without a front end", [](Config c, Value v) { return set_flag(&c->headless, v); }},
    {"cluster-key-file", nullptr, nullptr, "FILE", "the secret that the nodes share", [](Config c, Value v) -> Result<void> { c->cluster_key_file = is_none(v) ? "" : v; return {}; }},
    {"load-balancer", nullptr, nullptr, "NAME", "online: round_robin, least_loaded", [](Config c, Value v) { return set_name(&c->load_balancer, v, kBalancers); }},
    {"assignment", nullptr, nullptr, "NAME", "offline: modulo, contiguous, priority, dynamic", [](Config c, Value v) { return set_name(&c->assignment, v, kAssignments); }},
    // vLLM's, without a counterpart here
    {"gpu-memory-utilization", nullptr, nullptr, "FRACTION", kNoEffect, ignore_fraction},
    {"enforce-eager", nullptr, nullptr, nullptr, kNoEffect, ignore_flag},
    {"swap-space", nullptr, nullptr, "GIB", kNoEffect, ignore_number},
    {"cpu-offload-gb", nullptr, nullptr, "GIB", kNoEffect, ignore_number},
    {"tokenizer-mode", nullptr, nullptr, "NAME", kNoEffect, only_tokenizer_mode},
    {"revision", nullptr, nullptr, "NAME", kNoEffect, ignore},
    {"code-revision", nullptr, nullptr, "NAME", kNoEffect, ignore},
    {"tokenizer-revision", nullptr, nullptr, "NAME", kNoEffect, ignore},
    {"download-dir", nullptr, nullptr, "DIR", kNoEffect, ignore},
    {"disable-log-stats", nullptr, nullptr, nullptr, kNoEffect, ignore_flag},
    {"disable-log-requests", nullptr, nullptr, nullptr, kNoEffect, ignore_flag},
    {"max-seq-len-to-capture", nullptr, nullptr, "N", kNoEffect, ignore_integer},
    {"num-scheduler-steps", nullptr, nullptr, "N", kNoEffect, ignore_integer},
    {"max-parallel-loading-workers", nullptr, nullptr, "N", kNoEffect, ignore_integer},
    {"disable-custom-all-reduce", nullptr, nullptr, nullptr, kNoEffect, ignore_flag},
    {"enable-chunked-prefill", nullptr, nullptr, nullptr, "accepted as vLLM has it; prefill is always chunked", ignore_flag},
    {"async-scheduling", nullptr, nullptr, nullptr, kNoEffect, ignore_flag},
    {"use-v2-block-manager", nullptr, nullptr, nullptr, kNoEffect, ignore_flag},
    {"compilation-config", nullptr, nullptr, "JSON", kNoEffect, ignore},
    {"kv-cache-dtype", nullptr, nullptr, "NAME", "auto: the model's dtype", only_auto},
    {"quantization", "-q", nullptr, "NAME", "none", only_none},
    {"disable-sliding-window", nullptr, nullptr, nullptr, "false", only_false},
};
// clang-format on

// "--Max_Model_Len" -> "max-model-len"
std::string normalised(const std::string& name) {
  std::string result = lower(name);
  std::replace(result.begin(), result.end(), '_', '-');
  return result.substr(std::min(result.find_first_not_of('-'), result.size()));
}

const EngineOption* find_exact(const std::string& name) {
  for (const EngineOption& option : kOptions) {
    const bool found = name == option.name || (option.alias != nullptr && name == option.alias) ||
                       (option.short_name != nullptr && name == option.short_name + 1);
    if (found) return &option;
  }
  return nullptr;
}

}  // namespace

std::span<const EngineOption> engine_options() {
  return kOptions;
}

Result<EngineOptionMatch> find_engine_option(const std::string& name) {
  const std::string wanted = normalised(name);
  if (const EngineOption* option = find_exact(wanted)) return EngineOptionMatch{option, false};
  if (wanted.starts_with("no-")) {
    const EngineOption* option = find_exact(wanted.substr(3));
    if (option != nullptr && option->value_hint == nullptr) return EngineOptionMatch{option, true};
  }
  std::vector<std::string> known;
  for (const EngineOption& option : kOptions) known.emplace_back(option.name);
  const auto nearest = nearest_name(wanted, known);
  return fail(ErrorCode::invalid_argument, "unknown engine option \"{}\"{}", name.substr(0, 100),
              nearest ? fmt::format("; did you mean {}?", *nearest) : "");
}

Result<void> apply_engine_option(EngineConfig* config, const std::string& name, const std::string& value) {
  CHORUS_TRY(const EngineOptionMatch match, find_engine_option(name));
  std::string effective = value;
  if (match.negated) {
    const auto flag = parse_flag(value);
    if (!flag) return with_context(flag.error(), fmt::format("--no-{} is", match.option->name));
    effective = *flag ? "false" : "true";
  }
  auto applied = match.option->apply(config, effective);
  if (!applied) return fail(applied.error().code, "--{} is {}", match.option->name, applied.error().message);
  return {};
}

}  // namespace chorus
