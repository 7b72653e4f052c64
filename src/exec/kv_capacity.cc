#include "exec/kv_capacity.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/log.h"
#include "exec/kv_layout.h"
#include "exec/load_weights.h"
#include "exec/model_runner.h"
#include "kernels/attention.h"
#include "sched/kv_shape.h"

namespace chorus {
namespace {

struct Shard {
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_block_bytes = 0;
};

Result<std::vector<Shard>> shards_of(const EngineConfig& config, const ModelConfig& model) {
  CHORUS_TRY(const Isa isa, choose_isa(config.device, config.cpu_isa));
  const KvDType dtype = compute_kv_dtype(config, compute_dtype(config, model));
  std::vector<Shard> shards;
  for (int shard = 0; shard < weight_shards(config.parallel); ++shard) {
    CHORUS_TRY(const DeclaredModel part, declare_shard(config, model, isa, shard));
    const bool has_states =
        std::ranges::any_of(part.decoder.kv(), [](const auto& spec) { return spec.state_floats > 0; });
    if (has_states && config.parallel.decode_context_parallel_size > 1) {
      return fail(
          ErrorCode::invalid_argument,
          "--decode-context-parallel-size: {} keeps a state of each sequence, which context ranks cannot share; "
          "leave the option out",
          model.directory);
    }
    const KvPlaces places(part.decoder.kv(), kv_window(model, config.parallel), config.block_size, dtype);
    shards.push_back({part.parameters.arena_bytes(), places.block_bytes()});
  }
  return shards;
}

// A block is one on all stages, and each context-parallel worker has different blocks.
void count_tokens(const EngineConfig& config, const ModelConfig& model, const std::vector<Shard>& shards,
                  std::uint64_t kv_cache_bytes, KvCapacity* capacity) {
  const std::int32_t pools = config.parallel.decode_context_parallel_size;
  std::uint64_t blocks_of_pool = std::numeric_limits<std::uint64_t>::max();
  for (const Shard& shard : shards) blocks_of_pool = std::min(blocks_of_pool, kv_cache_bytes / shard.kv_block_bytes);
  const auto blocks = static_cast<std::int32_t>(
                          std::min<std::uint64_t>(blocks_of_pool, kv_blocks_max / static_cast<std::uint64_t>(pools))) *
                      pools;
  const KvPools kv_pools{pools, pools == 1 ? 1 : attention_partition_keys / config.block_size};
  const KvShape shape{kv_pools, kv_window(model, config.parallel), config.block_size, config.max_num_batched_tokens};
  capacity->tokens = shape.longest_sequence(blocks) * config.block_size;
  const std::int64_t of_longest =
      std::max<std::int64_t>(1, (longest_request(config, model) + config.block_size - 1) / config.block_size);
  capacity->longest_requests = std::numeric_limits<double>::max();
  for (std::int32_t pool = 0; pool < pools; ++pool) {
    const double fit =
        static_cast<double>(kv_pools.size(blocks, pool)) / static_cast<double>(shape.needed(of_longest, pool));
    capacity->longest_requests = std::min(capacity->longest_requests, fit);
  }
}

}  // namespace

int longest_request(const EngineConfig& config, const ModelConfig& model) {
  return config.max_model_len > 0 ? config.max_model_len : model.max_position_embeddings;
}

Result<KvCapacity> kv_capacity(const EngineConfig& given, const ModelConfig& model, std::uint64_t kv_cache_bytes) {
  const EngineConfig config = settled(given, model);
  CHORUS_TRY(const std::vector<Shard> shards, shards_of(config, model));
  KvCapacity capacity;
  count_tokens(config, model, shards, kv_cache_bytes, &capacity);
  for (const int shard : local_weight_shards(config.parallel)) {
    capacity.weight_bytes += shards[static_cast<std::size_t>(shard)].weight_bytes;
  }
  return capacity;
}

Result<EngineConfig> fit_to_kv_memory(EngineConfig config, const ModelConfig& model, const NodeResources& node) {
  const bool starts_all = !config.on_ray() && !config.parallel.several_nodes() &&
                          config.distributed_executor_backend != "external_launcher";
  if (config.kv_cache_bytes == 0 && starts_all) {
    CHORUS_TRY(const KvCapacity none, kv_capacity(config, model, 0));
    CHORUS_TRY(config.kv_cache_bytes, kv_cache_bytes_per_worker(config, node, none.weight_bytes));
  }
  const std::uint64_t bytes = config.kv_cache_bytes > 0 ? config.kv_cache_bytes : kv_cache_bytes_default_max;
  CHORUS_TRY(const KvCapacity capacity, kv_capacity(config, model, bytes));
  // Not one block: the worker says what one takes.
  if (capacity.tokens == 0) return config;
  const std::int64_t wanted = longest_request(config, model);
  if (wanted <= capacity.tokens + 1) return config;  // the last token's keys are never read
  if (config.max_model_len > 0) {
    return fail(
        ErrorCode::invalid_argument,
        "--max-model-len {} is more than the KV cache of {} bytes a worker holds, {} tokens: lower it, or raise "
        "--kv-cache-memory",
        config.max_model_len, bytes, capacity.tokens);
  }
  config.max_model_len = static_cast<int>(capacity.tokens);
  log(LogLevel::info,
      "max_model_len is {}: the KV cache of {} bytes a worker holds that many tokens, and the model's positions reach "
      "{}; --kv-cache-memory raises it",
      config.max_model_len, bytes, model.max_position_embeddings);
  return config;
}

}  // namespace chorus
