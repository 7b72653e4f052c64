#include <algorithm>

#include "exec/model_runner.h"
#include "weights/checkpoint.h"

namespace chorus {
namespace {

class UniprocExecutor final : public Executor {
 public:
  UniprocExecutor(std::unique_ptr<ModelRunner> runner, const ExecutorInfo& info) : runner_(std::move(runner)), info_(info) {}
  ExecutorInfo info() const override { return info_; }
  Result<void> execute(const StepPlan& plan, StepResult* result) override { return runner_->execute(plan, result); }

 private:
  std::unique_ptr<ModelRunner> runner_;
  ExecutorInfo info_;
};

}  // namespace

Result<LoadedWeights> load_weights(const EngineConfig& config, const ModelConfig& model, int threads,
                                   const std::function<bool()>& interrupted) {
  CHORUS_TRY(const Isa isa, choose_isa(config.cpu_isa));
  const DType dtype = compute_dtype(config, model);
  CHORUS_TRY(const DeclaredModel declared, declare_model(model, isa, dtype, {}));
  std::unique_ptr<Checkpoint> checkpoint;
  if (config.load_format == LoadFormat::dummy) {
    checkpoint = make_dummy_checkpoint(config.seed, dtype);
  } else {
    CHORUS_TRY(checkpoint, open_checkpoint(config.model));
  }
  CHORUS_TRY(WeightArena arena, WeightArena::create(declared.parameters.arena_bytes()));
  ThreadPool pool(std::max(1, threads));
  CHORUS_TRY_VOID(declared.parameters.pack(*checkpoint, pool, arena.writable_data(), interrupted));
  CHORUS_TRY_VOID(arena.seal());
  return LoadedWeights{std::move(arena), isa, dtype};
}

Result<std::unique_ptr<Executor>> make_uniproc_executor(const EngineConfig& config, const ModelConfig& model,
                                                        const LoadedWeights& weights, int threads, const std::vector<int>& cpus) {
  ModelRunner::Options options;
  options.isa = weights.isa;
  options.dtype = weights.dtype;
  options.max_model_len = config.max_model_len > 0 ? config.max_model_len : model.max_position_embeddings;
  options.block_size = config.block_size;
  options.kv_cache_bytes = config.kv_cache_bytes;
  options.threads = std::max(1, threads);
  options.cpus = cpus;
  CHORUS_TRY(auto runner, ModelRunner::create(model, options, weights.arena.data(), weights.arena.size(), make_self_group()));
  const ExecutorInfo info{runner->kv_blocks(), config.block_size, model.vocab_size};
  return std::unique_ptr<Executor>(std::make_unique<UniprocExecutor>(std::move(runner), info));
}

}  // namespace chorus
