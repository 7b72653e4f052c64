// The weights of a node: packed once, mapped by every worker of every replica on it.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "kernels/isa.h"
#include "tensor/dtype.h"
#include "weights/arena.h"
#include "weights/checkpoint.h"

namespace chorus {

// One sealed memory file with the shards (exec/worker_groups.h) one after another.
struct LoadedWeights {
  WeightArena arena;
  std::vector<std::uint64_t> shard_offsets;  // shards + 1 of them, in bytes; equal neighbours: a shard that is not here
  Isa isa = Isa::scalar;
  DType dtype = DType::bfloat16;
  Quantization quantization = Quantization::none;
  std::string digest;  // Checkpoint::digest() of what they were packed from; the same for every choice of shards

  const std::byte* shard(int index) const { return arena.data() + shard_offsets[static_cast<std::size_t>(index)]; }
  std::size_t shard_bytes(int index) const {
    return shard_offsets[static_cast<std::size_t>(index) + 1] - shard_offsets[static_cast<std::size_t>(index)];
  }
};

// "amx-bf16/bfloat16", and behind another / how weights are packed that are not floats of the dtype: int8, int4, or
// stored (as the checkpoint has them); then, where keys and values are not stored in the dtype, kv-int8, kv-bfloat16 or
// kv-float32. docs/numerics.md.
std::string numerics_profile(Isa isa, DType dtype, Quantization quantization, KvDType kv_dtype);
// Where nothing but the instruction set and the dtype is chosen.
std::string numerics_profile(Isa isa, DType dtype);
// As the configuration has it computed.
std::string numerics_profile(Isa isa, const EngineConfig& config, const ModelConfig& model);

// The model's weights as they lie in its directory, or made up for --load-format dummy.
Result<std::unique_ptr<Checkpoint>> open_weights_of(const EngineConfig& config, const ModelConfig& model, DType dtype);

// The shards that this node's workers of its replicas need, ascending.
std::vector<int> local_weight_shards(const ParallelConfig& parallel);

// Packs `shards` of the model (none: the arena stays empty) for the configured instruction set and dtype. Of the
// checkpoint only what these shards need is read. `threads` share the work. Errors name file and tensor. `interrupted`
// may be empty; asked between tensors, and true ends the loading with ErrorCode::cancelled.
Result<LoadedWeights> load_weights(const EngineConfig& config, const ModelConfig& model, const std::vector<int>& shards,
                                   int threads, const std::function<bool()>& interrupted = {});
}  // namespace chorus
