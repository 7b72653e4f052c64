// A runner on a GPU (its emulation, or the card in a build with CUDA): what stands beside a sequence, chunks and the
// way a token is taken change nothing of it. That the logits are the model's is shown in models/reference_test.cc.
#include <gtest/gtest.h>

#include "exec/model_runner.h"
#include "kernels/gpu_runtime.h"
#include "testing/planned_sequences.h"
#include "testing/tiny_model.h"

namespace chorus {
namespace {

// One model whose layers see all keys, and one where three of four have a window.
class ModelRunnerOnGpu : public testing::TestWithParam<const char*> {
 protected:
  static TinyModel load() {
    return load_tiny_model(std::string(CHORUS_TEST_DATA) + "/models/" + GetParam(), "auto", {}, "auto",
                           gpu::is_real() ? "cuda" : "cuda-emulation");
  }
  std::unique_ptr<ModelRunner> create() const {
    ModelRunner::Options options;
    options.isa = model.weights.isa;
    options.dtype = model.weights.dtype;
    options.kv_dtype = kv_dtype_of(options.dtype);
    options.max_model_len = model.config.max_position_embeddings;
    options.kv_cache_bytes = std::uint64_t{1} << 20;
    options.rows_max = 512;
    auto runner = ModelRunner::create(model.config, options, {}, 0,
                                      {model.weights.shard(0), model.weights.shard_bytes(0)}, nullptr, {});
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    return std::move(*runner);
  }
  static std::vector<SequenceResult> run(ModelRunner* runner, const std::vector<PlannedRows>& rows) {
    StepResult result;
    const auto ran = runner->execute(plan_of(rows), &result);
    EXPECT_TRUE(ran.ok()) << ran.error().message;
    return result.sequences;
  }

  const TinyModel model = load();
};

TEST_P(ModelRunnerOnGpu, SequencesOfAStepAreIndependent) {
  PlannedSequence decoding = planned_sequence(4, 30, 5, 0);
  PlannedSequence halfway = planned_sequence(5, 40, 0, 10);
  PlannedSequence drawn = planned_sequence(7, 17, 0, 30);
  drawn.params.temperature = 1.5;
  const auto prepared = [&] {
    auto runner = create();
    run(runner.get(), {{&decoding, 0, 34}, {&halfway, 0, 16}});
    return runner;
  };
  const std::vector<PlannedRows> rows = {{&drawn, 0, 17}, {&decoding, 34, 1}, {&halfway, 16, 24}};
  const auto together = run(prepared().get(), rows);
  ASSERT_EQ(together.size(), 3U);
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(run(prepared().get(), {rows[i]}).at(0), together[i]) << i;
}

// More than a partition of keys: a decode gives each a block of its own.
TEST_P(ModelRunnerOnGpu, ADecodedRowIsThatOfAPrefill) {
  PlannedSequence sequence = planned_sequence(3, 270, 0);
  sequence.params.prompt_logprobs = 1;
  const auto whole_runner = create(), runner = create();
  const SequenceResult whole = run(whole_runner.get(), {{&sequence, 0, 270}}).at(0);
  run(runner.get(), {{&sequence, 0, 267}});
  std::vector<PositionLogprobs> rows;
  for (std::int32_t start = 267; start < 270; ++start) {
    const SequenceResult part = run(runner.get(), {{&sequence, start, 1}}).at(0);
    rows.insert(rows.end(), part.prompt_logprobs.begin(), part.prompt_logprobs.end());
    if (start == 269) {
      EXPECT_EQ(part.logprobs, whole.logprobs);
    }
  }
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), whole.prompt_logprobs.end() - 2, whole.prompt_logprobs.end()));
}

// Greedy choices are made on the device, unless logprobs are asked for.
TEST_P(ModelRunnerOnGpu, TheDeviceChoosesAsTheSampler) {
  std::vector<PlannedSequence> sequences;
  for (int i = 0; i < 5; ++i) sequences.push_back(planned_sequence(static_cast<std::uint64_t>(i), 5 + i, 0, 2 * i));
  const auto tokens = [&] {
    std::vector<PlannedRows> rows;
    for (const PlannedSequence& sequence : sequences) rows.push_back({&sequence, 0, sequence.prompt_length});
    std::vector<TokenId> chosen;
    for (const SequenceResult& result : run(create().get(), rows)) chosen.push_back(result.token);
    return chosen;
  };
  const auto sampled = tokens();
  for (PlannedSequence& sequence : sequences) sequence.params.logprobs.reset();
  EXPECT_EQ(tokens(), sampled);
}

INSTANTIATE_TEST_SUITE_P(Models, ModelRunnerOnGpu, testing::Values("llama", "cohere2"));

}  // namespace
}  // namespace chorus
