#include "exec/load_weights.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "exec/model_runner.h"
#include "weights/checkpoint.h"

namespace chorus {
namespace {

constexpr std::size_t shard_alignment = 64;  // of packed matrices; a shard's length is a multiple of it

}  // namespace

Result<LoadedWeights> load_weights(const EngineConfig& config, const ModelConfig& model, const std::vector<int>& shards, int threads,
                                   const std::function<bool()>& interrupted) {
  CHORUS_TRY(const Isa isa, choose_isa(config.cpu_isa));
  const DType dtype = compute_dtype(config, model);
  std::vector<DeclaredModel> declared;
  std::vector<std::uint64_t> offsets = {0};
  for (int shard = 0; shard < weight_shards(config.parallel); ++shard) {
    CHORUS_TRY(DeclaredModel part, declare_model(model, isa, dtype, model_shard(model, config.parallel, shard)));
    const bool wanted = std::ranges::find(shards, shard) != shards.end();
    const std::size_t bytes = part.parameters.arena_bytes();
    CHECK(bytes % shard_alignment == 0, "a shard of {} bytes", bytes);
    offsets.push_back(offsets.back() + (wanted ? bytes : 0));
    declared.push_back(std::move(part));
  }
  std::unique_ptr<Checkpoint> checkpoint;
  if (config.load_format == LoadFormat::dummy) {
    checkpoint = make_dummy_checkpoint(config.seed, dtype);
  } else {
    CHORUS_TRY(checkpoint, open_checkpoint(config.model));
  }
  CHORUS_TRY(WeightArena arena, WeightArena::create(offsets.back()));
  ThreadPool pool(std::max(1, threads));
  for (std::size_t shard = 0; shard < declared.size(); ++shard) {
    if (offsets[shard] == offsets[shard + 1]) continue;
    CHORUS_TRY_VOID(declared[shard].parameters.pack(*checkpoint, pool, arena.writable_data() + offsets[shard], interrupted));
  }
  CHORUS_TRY_VOID(arena.seal());
  return LoadedWeights{std::move(arena), std::move(offsets), isa, dtype};
}

Result<LoadedWeights> load_weights(const EngineConfig& config, const ModelConfig& model, int threads,
                                   const std::function<bool()>& interrupted) {
  std::vector<int> shards(static_cast<std::size_t>(weight_shards(config.parallel)));
  std::iota(shards.begin(), shards.end(), 0);
  return load_weights(config, model, shards, threads, interrupted);
}

}  // namespace chorus
