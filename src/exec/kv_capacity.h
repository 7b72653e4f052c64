// What the KV memory of a replica can hold, told before anything is loaded.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "config/node.h"

namespace chorus {

struct KvCapacity {
  std::int64_t tokens = 0;         // of one sequence that has all of a replica's blocks
  double longest_requests = 0;     // so many of longest_request() tokens have room at a time
  std::uint64_t weight_bytes = 0;  // of this node's workers, one copy
};

// Tokens of prompt and output together: --max-model-len, else the model's.
int longest_request(const EngineConfig& config, const ModelConfig& model);

// With `kv_cache_bytes` a worker.
Result<KvCapacity> kv_capacity(const EngineConfig& config, const ModelConfig& model, std::uint64_t kv_cache_bytes);

// The configuration with what the KV memory decides, as vLLM does it: a max_model_len that was given and cannot be held
// is refused, with both numbers; one that was not given is lowered to what can be held, and the log says so. Where this
// process starts all workers kv_cache_bytes is chosen too, so that they find what was counted on. Where others do, and
// no size was given, the default's upper bound is counted on.
Result<EngineConfig> fit_to_kv_memory(EngineConfig config, const ModelConfig& model, const NodeResources& node);

}  // namespace chorus
