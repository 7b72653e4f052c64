// One worker's runner against the model called directly (testing/tiny_model.h), whose logits are the reference's
// (models/reference_test.cc). Workers that share a model: model_runner_workers_test.cc.
#include "exec/model_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/registry.h"
#include "testing/planned_sequences.h"
#include "testing/tiny_model.h"

namespace chorus {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr double logprob_tolerance = 1e-5;  // a float of a logprob down to -64

const std::string llama = std::string(CHORUS_TEST_DATA) + "/models/llama";

ModelRunner::Options options_of(const TinyModel& model, int threads = 1) {
  ModelRunner::Options options;
  options.isa = model.weights.isa;
  options.dtype = model.weights.dtype;
  options.kv_dtype = kv_dtype_of(options.dtype);
  options.max_model_len = model.config.max_position_embeddings;
  options.kv_cache_bytes = std::uint64_t{4} << 20;
  options.threads = threads;
  return options;
}

Result<std::unique_ptr<ModelRunner>> create(const TinyModel& model, const ModelRunner::Options& options) {
  return ModelRunner::create(model.config, options, {}, 0, {model.weights.shard(0), model.weights.shard_bytes(0)},
                             nullptr, {});
}

// A step's result. Fails the test on an error.
StepResult run(ModelRunner* runner, const std::vector<PlannedRows>& rows) {
  StepResult result;
  const auto ran = runner->execute(plan_of(rows), &result);
  EXPECT_TRUE(ran.ok()) << ran.error().message;
  return result;
}

// `logprobs` against the logits of its position: those of `chosen` and of the `top` most likely tokens.
void expect_logprobs(const PositionLogprobs& logprobs, TokenId chosen, std::size_t top,
                     const std::vector<float>& logits) {
  const std::vector<double> expected = naive_logprobs(logits);
  EXPECT_EQ(logprobs.chosen.token, chosen);
  EXPECT_NEAR(logprobs.chosen.logprob, expected[static_cast<std::size_t>(chosen)], logprob_tolerance);
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(),
                           [&](TokenId token) { return logits[static_cast<std::size_t>(token)]; });
  ASSERT_THAT(logprobs.top, SizeIs(top));
  for (std::size_t i = 0; i < top; ++i) {
    EXPECT_EQ(logprobs.top[i].token, order[i]);
    EXPECT_NEAR(logprobs.top[i].logprob, expected[static_cast<std::size_t>(order[i])], logprob_tolerance);
  }
}

class ModelRunnerTest : public testing::TestWithParam<std::string> {
 protected:
  const TinyModel model = load_tiny_model(llama, GetParam());
};

TEST_P(ModelRunnerTest, PrefillAndDecodeSampleFromTheModelsLogits) {
  for (const bool greedy : {true, false}) {
    const auto runner = create(model, options_of(model)).value();
    PlannedSequence sequence = planned_sequence(1, 20, 0);
    sequence.blocks = {9, 2, 7, 0};
    sequence.params.temperature = greedy ? 0 : 1;
    sequence.params.seed = 77;
    sequence.choice = 2;
    for (std::int32_t position = 0, start = 0; position < 24; ++position) {
      const auto length = static_cast<std::int32_t>(sequence.history.size());
      const StepResult result = run(runner.get(), {{&sequence, start, length - start}});
      ASSERT_THAT(result.sequences, SizeIs(1));
      const SequenceResult& one = result.sequences[0];
      const std::vector<float> logits = naive_logits(model, sequence.history).back();
      const TokenId expected =
          greedy ? argmax(logits) : naive_draw(logits, 77, 2, static_cast<std::uint64_t>(position));
      ASSERT_EQ(one.token, expected) << "position " << position;
      EXPECT_FALSE(one.not_a_number);
      EXPECT_THAT(one.prompt_logprobs, IsEmpty());
      expect_logprobs(one.logprobs, expected, 3, logits);
      sequence.history.push_back(one.token);
      start = length;
    }
  }
}

// More of them than logits are computed at a time.
TEST_P(ModelRunnerTest, PromptLogprobsAreThoseOfEachPromptTokenButTheFirst) {
  const auto runner = create(model, options_of(model, 2)).value();
  PlannedSequence sequence = planned_sequence(2, 150, 0);
  sequence.params.prompt_logprobs = 2;
  const StepResult result = run(runner.get(), {{&sequence, 0, 150}});
  const auto logits = naive_logits(model, sequence.history);
  const SequenceResult& one = result.sequences.at(0);
  ASSERT_THAT(one.prompt_logprobs, SizeIs(149));
  for (std::size_t i = 0; i < 149; ++i) {
    SCOPED_TRACE(i);
    expect_logprobs(one.prompt_logprobs[i], sequence.history[i + 1], 2, logits[i]);
  }
  expect_logprobs(one.logprobs, argmax(logits.back()), 3, logits.back());
}

TEST_P(ModelRunnerTest, ChunksAndThreadsChangeNothing) {
  PlannedSequence sequence = planned_sequence(3, 150, 0);
  sequence.params.prompt_logprobs = 1;
  const auto whole_runner = create(model, options_of(model)).value();
  const SequenceResult whole = run(whole_runner.get(), {{&sequence, 0, 150}}).sequences.at(0);
  for (const std::int32_t chunk : {1, 16, 33, 149}) {
    const auto runner = create(model, options_of(model, 3)).value();
    SequenceResult all;
    for (std::int32_t start = 0; start < 150; start += chunk) {
      const std::int32_t count = std::min(chunk, 150 - start);
      const SequenceResult part = run(runner.get(), {{&sequence, start, count}}).sequences.at(0);
      all.prompt_logprobs.insert(all.prompt_logprobs.end(), part.prompt_logprobs.begin(), part.prompt_logprobs.end());
      if (start + count < 150) {
        EXPECT_EQ(part.token, -1) << "sampled in the middle of the prompt";
      }
      all.token = part.token;
      all.logprobs = part.logprobs;
    }
    EXPECT_EQ(all, whole) << "chunks of " << chunk;
  }
}

// Goal: what is computed beside a sequence changes nothing of it, and results stand where the plan has their sequences.
TEST_P(ModelRunnerTest, SequencesOfAStepAreIndependentAndInThePlansOrder) {
  PlannedSequence decoding = planned_sequence(4, 30, 5, 0);
  PlannedSequence halfway = planned_sequence(5, 90, 0, 10);
  PlannedSequence scored = planned_sequence(6, 40, 0, 20);
  scored.params.prompt_logprobs = 0;
  PlannedSequence drawn = planned_sequence(7, 17, 0, 30);
  drawn.params.temperature = 1.5;
  drawn.params.logprobs.reset();
  std::vector<PlannedRows> rows = {{&decoding, 34, 1}, {&halfway, 16, 50}, {&scored, 0, 40}, {&drawn, 0, 17}};
  const auto prepared = [&] {
    auto runner = create(model, options_of(model, 2)).value();
    run(runner.get(), {{&decoding, 0, 34}, {&halfway, 0, 16}});
    return runner;
  };
  std::vector<SequenceResult> alone;
  for (const PlannedRows& one : rows) alone.push_back(run(prepared().get(), {one}).sequences.at(0));
  EXPECT_EQ(alone[1].token, -1);
  EXPECT_THAT(alone[2].prompt_logprobs, SizeIs(39));
  EXPECT_EQ(alone[3].logprobs, PositionLogprobs());
  EXPECT_EQ(run(prepared().get(), rows).sequences, alone);
  std::ranges::reverse(rows);
  std::ranges::reverse(alone);
  EXPECT_EQ(run(prepared().get(), rows).sequences, alone);
}

// Goal: keys and values are read through the block table, and from blocks that another sequence has written, too.
TEST_P(ModelRunnerTest, ASequenceGoesOnFromBlocksOfAnother) {
  const PlannedSequence first = planned_sequence(8, 32, 0, 3);
  PlannedSequence second = planned_sequence(9, 50, 0, 8);
  std::ranges::copy(first.history, second.history.begin());
  const auto logits = naive_logits(model, second.history).back();
  const auto runner = create(model, options_of(model)).value();
  run(runner.get(), {{&first, 0, 32}});
  second.blocks = {3, 4, 11, 1};
  const SequenceResult shared = run(runner.get(), {{&second, 32, 18}}).sequences.at(0);
  expect_logprobs(shared.logprobs, argmax(logits), 3, logits);
  second.blocks = {3, 20, 11, 1};
  EXPECT_NE(run(runner.get(), {{&second, 32, 18}}).sequences.at(0), shared) << "nobody has written block 20";
}

INSTANTIATE_TEST_SUITE_P(DTypes, ModelRunnerTest, testing::Values("float32", "bfloat16"),
                         [](const auto& info) { return info.param; });

TEST(ModelRunner, AResultKeepsNothingOfAnEarlierStep) {
  const TinyModel model = load_tiny_model(llama);
  const auto runner = create(model, options_of(model)).value();
  PlannedSequence scored = planned_sequence(1, 20, 0, 0);
  scored.params.prompt_logprobs = 1;
  const PlannedSequence other = planned_sequence(2, 30, 0, 5);
  StepResult result;
  ASSERT_TRUE(runner->execute(plan_of({{&scored, 0, 20}, {&other, 0, 20}}), &result).ok());
  ASSERT_TRUE(runner->execute(plan_of({{&other, 20, 5}}), &result).ok());
  ASSERT_THAT(result.sequences, SizeIs(1));
  EXPECT_EQ(result.sequences[0].token, -1);
  EXPECT_THAT(result.sequences[0].logprobs.top, IsEmpty());
  EXPECT_THAT(result.sequences[0].prompt_logprobs, IsEmpty());
  ASSERT_TRUE(runner->execute(StepPlan(), &result).ok());
  EXPECT_THAT(result.sequences, IsEmpty());
}

TEST(ModelRunner, BannedTokensAreNotSampled) {
  const TinyModel model = load_tiny_model(llama);
  const auto runner = create(model, options_of(model)).value();
  PlannedSequence sequence = planned_sequence(1, 20, 0);
  const TokenId likeliest = run(runner.get(), {{&sequence, 0, 20}}).sequences.at(0).token;
  sequence.banned = {likeliest};
  const SequenceResult result = run(runner.get(), {{&sequence, 19, 1}}).sequences.at(0);
  EXPECT_EQ(result.token, result.logprobs.top.at(1).token) << "the second";
  EXPECT_EQ(result.logprobs.top.at(0).token, likeliest) << "logprobs are of the logits as they are";
}

// A checkpoint with NaN in the embedding of one token.
class PoisonedCheckpoint final : public Checkpoint {
 public:
  PoisonedCheckpoint(std::unique_ptr<Checkpoint> inner, TokenId poisoned)
      : inner_(std::move(inner)), poisoned_(poisoned) {}
  bool has(const std::string& name) const override { return inner_->has(name); }
  std::vector<std::string> names() const override { return inner_->names(); }
  std::size_t files() const override { return inner_->files(); }
  std::string digest() const override { return inner_->digest(); }
  void release(const std::string& name) const override { inner_->release(name); }
  Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const override {
    CHORUS_TRY(TensorView view, inner_->tensor(name, shape));
    if (name != "model.embed_tokens.weight") return view;
    const auto columns = static_cast<std::size_t>(shape[1]);
    const float* values = reinterpret_cast<const float*>(view.data);
    embedding_.assign(values, values + static_cast<std::size_t>(shape[0]) * columns);
    embedding_[static_cast<std::size_t>(poisoned_) * columns] = std::numeric_limits<float>::quiet_NaN();
    view.data = reinterpret_cast<const std::byte*>(embedding_.data());
    return view;
  }

 private:
  std::unique_ptr<Checkpoint> inner_;
  TokenId poisoned_;
  mutable std::vector<float> embedding_;
};

TEST(ModelRunner, LogitsThatAreNoNumbersFailTheirSequenceAlone) {
  TinyModel model = load_tiny_model(llama);
  constexpr TokenId poisoned = 501;
  ThreadPool pool(1);
  const DeclaredModel declared =
      declare_model(model.config, model.weights.isa, model.weights.dtype, whole_model(model.config)).value();
  const PoisonedCheckpoint checkpoint(open_checkpoint(llama).value(), poisoned);
  model.weights.arena = WeightArena::create(declared.parameters.arena_bytes()).value();
  ASSERT_TRUE(declared.parameters.pack(checkpoint, pool, model.weights.arena.writable_data()).ok());
  const auto runner = create(model, options_of(model)).value();
  const PlannedSequence well = planned_sequence(1, 20, 0, 0), also_well = planned_sequence(2, 20, 0, 4);
  PlannedSequence ill = planned_sequence(3, 20, 0, 2);
  ill.history[7] = poisoned;
  const auto results = run(runner.get(), {{&well, 0, 20}, {&ill, 0, 20}, {&also_well, 0, 20}}).sequences;
  ASSERT_THAT(results, SizeIs(3));
  EXPECT_TRUE(results[1].not_a_number);
  for (const std::size_t i : {0U, 2U}) {
    EXPECT_FALSE(results[i].not_a_number);
    EXPECT_EQ(results[i].token, argmax(naive_logits(model, (i == 0 ? well : also_well).history).back()));
  }
  EXPECT_EQ(run(runner.get(), {{&well, 0, 20}}).sequences, std::vector{results[0]}) << "nothing is left in the runner";
  StepResult kept{{results[1]}};
  ASSERT_TRUE(runner->execute(plan_of({{&well, 0, 10}}), &kept).ok());
  EXPECT_FALSE(kept.sequences.at(0).not_a_number) << "of an earlier step";
}

TEST(ModelRunner, RefusesWhatItCannotRun) {
  const TinyModel model = load_tiny_model(llama);
  ModelRunner::Options options = options_of(model);
  options.kv_cache_bytes = 8191;  // 2 layers, K and V, 2 heads of 16 dimensions, 16 tokens of 4 bytes: 8192
  const auto small = create(model, options);
  ASSERT_FALSE(small.ok());
  EXPECT_EQ(small.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(small.error().message, HasSubstr("--kv-cache-memory of 8191 bytes holds no block: one of 16 tokens takes "
                                               "8192 bytes"));
  options.kv_cache_bytes = 3 * 8192 + 8191;
  EXPECT_EQ(create(model, options).value()->kv_blocks(), 3);

  options.dtype = DType::bfloat16;
  EXPECT_FALSE(create(model, options).ok()) << "the arena is packed for float32";
  TinyModel unknown = load_tiny_model(llama);
  unknown.config.architecture = "GPT9ForCausalLM";
  const auto refused = create(unknown, options_of(unknown));
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("GPT9ForCausalLM is not supported"));
}

TEST(ModelRunner, RefusesToDeclareMoreThanAnyMachineHas) {
  ModelConfig config = read_model_config(llama, "auto").value();
  config.num_hidden_layers = 1'000'001;
  const auto refused = declare_model(config, Isa::scalar, DType::float32, {});
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("1e+06 experts or layers"));
  config.num_hidden_layers = 1000;
  config.hidden_size = config.intermediate_size = 1'000'000;
  EXPECT_FALSE(declare_model(config, Isa::scalar, DType::float32, {}).ok()) << "3e15 parameters";
}

TEST(ModelRunner, ShowsThatItMovesWithEachLayerAndShareOfLogits) {
  const TinyModel model = load_tiny_model(llama);
  ModelRunner::Options options = options_of(model);
  options.progress = Progress(std::make_shared<ProgressPage>());
  const auto runner = create(model, options).value();
  PlannedSequence sequence = planned_sequence(1, 70, 0);
  sequence.params.prompt_logprobs = 0;
  run(runner.get(), {{&sequence, 0, 70}});
  EXPECT_EQ(options.progress.sample().moves, 2U + 2U) << "2 layers, 70 rows of logits in 2 shares";
}

TEST(ModelRunner, ItsParametersAreTheCheckpoints) {
  const TinyModel model = load_tiny_model(llama);
  const auto runner = create(model, options_of(model)).value();
  const auto checkpoint = open_checkpoint(llama).value();
  std::vector<std::string> names;
  for (const NamedParameter& parameter : runner->parameters().named_parameters()) names.push_back(parameter.name);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(checkpoint->names()));
}

}  // namespace
}  // namespace chorus
