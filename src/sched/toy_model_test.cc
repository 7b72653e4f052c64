#include "testing/toy_model.h"

#include <gtest/gtest.h>

#include "testing/sample_value.h"

namespace chorus {
namespace {

struct Row {
  std::vector<BlockId> blocks;
  std::vector<TokenId> history;
  std::int32_t start = 0;
};

StepPlan plan_of(const std::vector<Row>& rows, const SamplingParams* params) {
  StepPlan plan;
  for (const Row& row : rows) {
    SequencePlan sequence;
    sequence.sequence = plan.sequences.size();
    sequence.start = row.start;
    sequence.count = static_cast<std::int32_t>(row.history.size()) - row.start;
    sequence.block_table = row.blocks;
    sequence.history = row.history;
    sequence.prompt_length = 1;
    sequence.sample = true;
    sequence.params = params;
    plan.rows += sequence.count;
    plan.sequences.push_back(sequence);
  }
  return plan;
}

class ToyModelTest : public testing::Test {
 protected:
  TokenId run(const std::vector<Row>& rows) {
    const StepPlan plan = plan_of(rows, &params_);
    model_.execute(plan, &result_);
    return result_.sequences.at(0).token;
  }
  SamplingParams params_;
  ToyModel model_{{.kv_blocks = 4, .block_size = 2, .vocab_size = 1000}};
  StepResult result_;
};

TEST_F(ToyModelTest, TheTokenDoesNotDependOnChunkingOrPlace) {
  const std::vector<Row> whole = {{{0, 1}, {1, 2, 3}, 0}};
  const TokenId token = run(whole);
  EXPECT_EQ(token, model_.next_token(whole[0].history, 1, params_, 0, {}));
  const std::vector<Row> first = {{{3}, {1, 2}, 0}}, second = {{{3, 2}, {1, 2, 3}, 2}};
  run(first);
  EXPECT_EQ(run(second), token);
  const TokenId banned[] = {token};
  EXPECT_NE(model_.next_token(whole[0].history, 1, params_, 0, banned), token);
  EXPECT_NE(model_.next_token(whole[0].history, 1, params_, 1, {}), token);
  EXPECT_NE(model_.next_token(whole[0].history, 2, params_, 0, {}), token);
}

using ToyModelDeathTest = ToyModelTest;

TEST_F(ToyModelDeathTest, CatchesAContextThatIsNotTheSequences) {
  const std::vector<Row> mine = {{{0}, {1, 2}, 0}}, wrong = {{{0, 1}, {1, 9, 3}, 2}}, never = {{{2, 1}, {1, 2, 3}, 2}};
  run(mine);
  EXPECT_DEATH(run(wrong), "another prefix at position 1");
  EXPECT_DEATH(run(never), "another prefix at position 0");
}

TEST_F(ToyModelDeathTest, CatchesTwoWritersAndReadingWhatTheSameStepWrites) {
  const std::vector<Row> twice = {{{0}, {1, 2}, 0}, {{0}, {1, 2}, 0}};
  EXPECT_DEATH(run(twice), "two rows of one step");
  const std::vector<Row> early = {{{0}, {1, 2}, 0}, {{0, 1}, {1, 2, 3}, 2}};
  EXPECT_DEATH(run(early), "another prefix");
}

// Goal: a sampling parameter that is lost on its way is seen. Method: each changes alone.
TEST(ToyModel, EverySamplingParameterChangesItsTokens) {
  ToyModel::Config config;
  config.vocab_size = 1 << 30;
  const ToyModel model(config);
  const std::vector<TokenId> history = {1, 2, 3};
  const auto token = [&](const SamplingParams& params) { return model.next_token(history, 3, params, 0, {}); };
  const auto changed = samples_with_one_change<SamplingParams>(3);
  for (std::size_t i = 0; i < changed.size(); ++i) {
    EXPECT_NE(token(changed[i]), token(sample_value<SamplingParams>(3))) << "member " << i;
  }
}

}  // namespace
}  // namespace chorus
