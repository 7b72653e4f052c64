// Runs one worker's part of a model: turns a StepPlan into rows, runs its layers over them, and samples where it is the
// worker that does. Owns the KV memory.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/progress.h"
#include "exec/executor.h"
#include "exec/kv_layout.h"
#include "exec/worker_groups.h"
#include "kernels/sample.h"
#include "layers/context.h"
#include "layers/expert_balancer.h"
#include "models/decoder.h"

namespace chorus {

// Of a replica. More than every sequence at full length could use are never needed; the page tables of a huge cache are
// not free.
inline constexpr std::uint64_t kv_blocks_max = 1U << 24;

class ModelRunner {
 public:
  struct Options {
    Isa isa = Isa::scalar;
    DType dtype = DType::bfloat16;
    Quantization quantization = Quantization::none;  // of the weights
    KvDType kv_dtype = KvDType::bfloat16;            // bfloat16 where isa is a GPU's
    int max_model_len = 0;
    int block_size = 16;
    std::uint64_t kv_cache_bytes = 0;
    int threads = 1;
    std::vector<int> cpus;  // one per thread, or empty
    // Where isa is a GPU's: its number among those that CUDA shows this process (counted around), and the most rows of
    // a step.
    int gpu = 0;
    int rows_max = 0;
    // Experts move between the ranks of the ep group while serving, by this configuration; nullopt: they stay.
    std::optional<EplbConfig> balancing = {};
    Progress progress = {};
  };
  // `shard`: number of the worker's part (exec/worker_groups.h), `arena` its packed weights, which outlive the runner;
  // of `checkpoint` (needed with `balancing` alone) the experts that move are read. All workers of the replica call
  // this at the same time (they agree on the number of KV blocks).
  static Result<std::unique_ptr<ModelRunner>> create(const ModelConfig& model, const Options& options,
                                                     const ParallelConfig& parallel, int shard,
                                                     std::span<const std::byte> arena, const Checkpoint* checkpoint,
                                                     WorkerGroups groups);

  std::int32_t kv_blocks() const { return kv_blocks_; }     // of each worker: the least of all
  const KvWindow& kv_window() const { return kv_window_; }  // the tables of its plans
  const WorkerGroups& groups() const { return groups_; }
  WorkerGroups& groups() { return groups_; }
  // This worker's weights: parameters().named_parameters().
  const Parameters& parameters() const { return parameters_; }
  // Computes this worker's part of the plan; every worker of the replica executes the same plans in the same order.
  // With expert parallelism a plan without rows is a step, too: of the experts, for the rows of other replicas. On the
  // output worker `result` is its result; on others it means nothing. `result` keeps its capacity. The plan is the
  // scheduler's own, or a PlanDecoder's, which refuses one beyond its limits: nothing of it is judged here again.
  Result<void> execute(const StepPlan& plan, StepResult* result);

 private:
  ModelRunner(const ModelConfig& model, const Options& options, const ParallelConfig& parallel, int shard,
              WorkerGroups groups);
  Result<void> open_device(std::span<const std::byte> arena);
  Result<void> allocate_kv();
  Result<std::int32_t> agree_on_blocks(std::uint64_t own);
  void lay_out(const StepPlan& plan);
  void lay_out_block_tables(const StepPlan& plan);
  void lay_out_window_tables(const StepPlan& plan);
  Result<void> pass_through_layers(const View& hidden);
  Result<void> sample_rows(const StepPlan& plan, const View& hidden, StepResult* result);
  // Of the rows wanted_[first, first + count): sampled on the device if all of them want the likeliest token alone.
  bool want_greedy_alone(const StepPlan& plan, std::int64_t first, std::int64_t count) const;
  void take_greedy(const View& logits, std::int64_t first, StepResult* result);
  void sample_chunk(const StepPlan& plan, std::span<const float> logits, std::int64_t first, std::int64_t count,
                    StepResult* result);
  Result<void> gather_samples(StepResult* result);
  void sample_one(int thread, const SequencePlan& sequence, std::span<const float> logits, SequenceResult* result);

  // A row whose logits are wanted: for the next token, or for the logprob of a prompt token.
  struct WantedRow {
    std::int32_t row = 0;
    std::int32_t sequence = 0;  // index into the plan
    std::int32_t target = -1;   // prompt token to score, or -1: sample
    std::int32_t slot = 0;      // index into SequenceResult::prompt_logprobs
  };

  template <typename Visit>
  void for_rows_of(int rank, const Visit& visit) const;
  static void swap_sample(const WantedRow& wanted, StepResult* step, SequenceResult* row);

  ModelConfig model_;
  Options options_;
  WorkerGroups groups_;
  ThreadPool pool_;
  std::unique_ptr<Device> device_;
  Parameters parameters_;
  std::optional<ExpertSlots> slots_;
  Decoder decoder_;
  std::optional<ExpertBalancer> balancer_;
  std::vector<RotaryTable> rotary_tables_;
  KvWindow kv_window_;
  std::int32_t kv_blocks_ = 0;
  std::vector<KvCacheLayer> caches_;
  std::vector<Sampler> samplers_;  // one per thread
  std::vector<std::vector<SampledLogprob>> tops_;
  // The step's rows; kept between steps for their capacity.
  std::vector<std::int32_t> tokens_, positions_, wanted_rows_, block_tables_;
  std::vector<AttentionSequence> sequences_;
  std::vector<std::vector<AttentionSequence>> window_sequences_;  // by windowed table
  std::vector<StepInput> other_tables_;
  StepInput step_;  // of the above
  std::vector<WantedRow> wanted_;
  StepResult samples_;  // of another tensor-parallel rank's rows, or of this one's for the first
  std::string message_;
};

// The parameters of a part of `model`, declared but not bound: their layout, and what they are packed from. Errors:
// unknown architecture.
struct DeclaredModel {
  Parameters parameters;
  Decoder decoder;
};
Result<DeclaredModel> declare_model(const ModelConfig& model, Isa isa, DType dtype, const ModelShard& shard,
                                    Quantization quantization = Quantization::none);
// The same of one shard (exec/worker_groups.h) as `config` wants it. Experts that move while serving are each worker's
// own (layers/expert_slots.h): they are no part of it.
Result<DeclaredModel> declare_shard(const EngineConfig& config, const ModelConfig& model, Isa isa, int shard);

}  // namespace chorus
