// Several workers that share a model, as threads: the output worker's results are those of one worker alone, which
// model_runner_test.cc holds against the model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <thread>

#include "exec/model_runner.h"
#include "testing/planned_sequences.h"
#include "testing/tiny_model.h"

namespace chorus {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr int timeout_ms = 60'000;
constexpr std::uint64_t kv_bytes = 512 << 10;  // so few that a block of another worker's number would not be there

// The plans of one replica, in order.
using Plans = std::vector<StepPlan>;

struct WorkerOutcome {
  std::int32_t kv_blocks = 0;
  bool is_output = false;
  std::vector<StepResult> results;  // of the output worker
  std::uint64_t moves = 0;          // that it has shown
};

TinyModel load(const std::string& name, const ParallelConfig& parallel) {
  return load_tiny_model(std::string(CHORUS_TEST_DATA) + "/models/" + name, "bfloat16", parallel);
}

Result<std::unique_ptr<ModelRunner>> create(const TinyModel& model, int rank,
                                            const std::shared_ptr<Transport>& transport, std::uint64_t kv_cache_bytes,
                                            const std::optional<EplbConfig>& balancing, const Progress& progress) {
  const ParallelConfig& parallel = model.engine.parallel;
  WorkerGroups groups = make_worker_groups(parallel, rank, transport, 0);
  ModelRunner::Options options;
  options.isa = model.weights.isa;
  options.dtype = model.weights.dtype;
  options.kv_dtype = kv_dtype_of(options.dtype);
  options.max_model_len = model.config.max_position_embeddings;
  options.kv_cache_bytes = kv_cache_bytes;
  options.balancing = balancing;
  options.progress = progress;
  const int shard = weight_shard_of(parallel, groups.at);
  const auto checkpoint = open_checkpoint(model.engine.model).value();
  return ModelRunner::create(model.config, options, parallel, shard,
                             {model.weights.shard(shard), model.weights.shard_bytes(shard)}, checkpoint.get(),
                             std::move(groups));
}

WorkerOutcome run_worker(const TinyModel& model, int rank, const std::shared_ptr<Transport>& transport,
                         const Plans& plans, const std::optional<EplbConfig>& balancing) {
  // The last has the least memory.
  const bool last = rank + 1 == model.engine.parallel.world_size();
  const Progress progress(std::make_shared<ProgressPage>());
  const auto runner = create(model, rank, transport, last ? kv_bytes / 2 : kv_bytes, balancing, progress).value();
  WorkerOutcome outcome{runner->kv_blocks(), runner->groups().is_output(), {}, 0};
  for (const StepPlan& plan : plans) {
    StepResult result;
    const auto ran = runner->execute(plan, &result);
    EXPECT_TRUE(ran.ok()) << ran.error().message;
    if (outcome.is_output) outcome.results.push_back(std::move(result));
  }
  outcome.moves = progress.sample().moves;
  return outcome;
}

// Every worker of the world; replica r is given plans_of[r].
std::vector<WorkerOutcome> run_world(const TinyModel& model, const std::vector<Plans>& plans_of,
                                     const std::optional<EplbConfig>& balancing = {}) {
  const int size = model.engine.parallel.world_size();
  const SharedWorld world = SharedWorld::create(size).value();
  std::vector<WorkerOutcome> outcomes(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    const auto replica = static_cast<std::size_t>(rank / model.engine.parallel.replica_size());
    std::shared_ptr<Transport> transport = world.join(rank, timeout_ms).value();
    threads.emplace_back([&, rank, replica, transport] {
      outcomes[static_cast<std::size_t>(rank)] = run_worker(model, rank, transport, plans_of[replica], balancing);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

std::vector<StepResult> run_alone(const std::string& name, const Plans& plans) {
  return run_worker(load(name, {}), 0, nullptr, plans, {}).results;
}

// The same in other blocks.
PlannedSequence planned_like(PlannedSequence sequence, BlockId first_block) {
  std::iota(sequence.blocks.begin(), sequence.blocks.end(), first_block);
  return sequence;
}

struct Shape {
  const char* name;
  int tp = 1, pp = 1, cp = 1;
};

class Workers : public testing::TestWithParam<Shape> {
 protected:
  ParallelConfig parallel() const {
    ParallelConfig config;
    config.tensor_parallel_size = GetParam().tp;
    config.pipeline_parallel_size = GetParam().pp;
    config.decode_context_parallel_size = GetParam().cp;
    return config;
  }
  // Block i of a sequence is of pool (i * 16 / 256) % cp: number, `cp` times, and that (exec/executor.h).
  void deal_blocks(PlannedSequence* sequence, BlockId first) const {
    for (std::size_t i = 0; i < sequence->blocks.size(); ++i) {
      const auto block = static_cast<BlockId>(i);
      sequence->blocks[i] = (first + block) * GetParam().cp + block * 16 / attention_partition_keys % GetParam().cp;
    }
  }
};

TEST_P(Workers, GiveTheResultsOfOneWorker) {
  PlannedSequence scored = planned_sequence(1, 300, 4), drawn = planned_sequence(2, 40, 4);
  scored.params.prompt_logprobs = 1;  // more rows than logits are computed at a time
  drawn.params.temperature = 1;
  drawn.params.seed = 9;
  const PlannedSequence alone_scored = scored, alone_drawn = planned_like(drawn, 40);
  deal_blocks(&scored, 0);
  deal_blocks(&drawn, 40);
  const auto plans_over = [](const PlannedSequence& one, const PlannedSequence& other) {
    return Plans{plan_of({{&one, 0, 180}}), plan_of({{&other, 0, 40}, {&one, 180, 120}}),
                 plan_of({{&one, 300, 1}, {&other, 40, 1}}), plan_of({{&one, 301, 1}, {&other, 41, 1}}),
                 plan_of({{&other, 42, 1}})};
  };
  const std::vector<StepResult> expected = run_alone("llama", plans_over(alone_scored, alone_drawn));
  ASSERT_THAT(expected, SizeIs(5));
  ASSERT_THAT(expected[1].sequences.at(1).prompt_logprobs, SizeIs(119));
  const auto outcomes = run_world(load("llama", parallel()), {plans_over(scored, drawn)});
  int outputs = 0;
  for (const WorkerOutcome& worker : outcomes) {
    if (!worker.is_output) continue;
    ++outputs;
    EXPECT_EQ(worker.results, expected);
  }
  EXPECT_EQ(outputs, 1);
}

TEST_P(Workers, AgreeOnTheFewestBlocks) {
  const TinyModel model = load("llama", parallel());
  const auto outcomes = run_world(model, {{}});
  // 2 layers, K and V, 2 heads of 16 dimensions, 16 tokens of 2 bytes: 4096 a block of a model that is not cut. A head
  // is not cut.
  const auto parts = static_cast<std::uint64_t>(std::min(GetParam().tp, 2) * GetParam().pp);
  const std::uint64_t block_bytes = 4096 / parts;
  for (const WorkerOutcome& worker : outcomes) {
    EXPECT_EQ(worker.kv_blocks, static_cast<std::int32_t>(kv_bytes / 2 / block_bytes));
  }
}

TEST_P(Workers, AllRefuseWhatOneOfThemCannotHold) {
  const TinyModel model = load("llama", parallel());
  const int size = model.engine.parallel.world_size();
  const SharedWorld world = SharedWorld::create(size).value();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    std::shared_ptr<Transport> transport = world.join(rank, timeout_ms).value();
    threads.emplace_back([&model, rank, transport] {
      const auto refused = create(model, rank, transport, rank == 0 ? 100 : kv_bytes, {}, {});
      ASSERT_FALSE(refused.ok());
      EXPECT_THAT(refused.error().message, HasSubstr("--kv-cache-memory"));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Shapes, Workers,
                         testing::Values(Shape{"tp2", 2}, Shape{"tp4", 4}, Shape{"pp2", 1, 2}, Shape{"cp2", 1, 1, 2},
                                         Shape{"tp2pp2", 2, 2}, Shape{"tp2cp2", 2, 1, 2}),
                         [](const auto& info) { return info.param.name; });

// Goal: a step without rows is a step of the experts, for the rows of the other replica; an expert may move meanwhile.
TEST(ExpertParallelWorkers, AReplicaWithoutRowsComputesForTheOther) {
  const PlannedSequence one = planned_sequence(1, 30, 4), other = planned_sequence(2, 20, 4);
  const Plans first = {plan_of({{&one, 0, 30}}), plan_of({{&one, 30, 1}}), {}, plan_of({{&one, 31, 1}}), {}, {}};
  const Plans second = {{}, {}, plan_of({{&other, 0, 20}}), {}, plan_of({{&other, 20, 1}}), {}};
  const std::vector<StepResult> expected[] = {run_alone("mixtral", first), run_alone("mixtral", second)};
  ASSERT_EQ(expected[0].size(), 6U);
  ParallelConfig parallel;
  parallel.data_parallel_size = 2;
  parallel.enable_expert_parallel = true;
  for (const bool moving : {false, true}) {
    parallel.enable_expert_balancing = moving;
    parallel.expert_balancing_config = moving ? R"({"window_size": 2, "step_interval": 1})" : "";
    const auto balancing = moving ? std::optional(parse_eplb_config(parallel.expert_balancing_config).value())
                                  : std::optional<EplbConfig>();
    const auto outcomes = run_world(load("mixtral", parallel), {first, second}, balancing);
    ASSERT_THAT(outcomes, SizeIs(2));
    // Each layer of a step, each share of logits, and each layer whose experts moved.
    EXPECT_EQ(outcomes[0].moves > 6 * 2 + 3, moving) << "an expert moves where it is asked for";
    for (std::size_t replica = 0; replica < 2; ++replica) {
      EXPECT_EQ(outcomes[replica].results, expected[replica]) << "replica " << replica << ", moving " << moving;
    }
  }
}

}  // namespace
}  // namespace chorus
