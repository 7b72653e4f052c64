#include "exec/plan_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/archive.h"
#include "testing/sample_value.h"

namespace chorus {
namespace {

// What a plan points into.
struct Sequence {
  std::vector<BlockId> blocks = {3, 4};
  std::vector<std::vector<BlockId>> windows = {{5, 6}, {7, 8}};
  std::vector<TokenId> history = {10, 11, 12, 13};
  std::vector<TokenId> banned = {2};
  SamplingParams params;
  SequencePlan plan() const {
    SequencePlan plan;
    plan.sequence = 7;
    plan.start = 1;
    plan.count = 2;
    plan.block_table = blocks;
    plan.window_tables = windows;
    plan.history = history;
    plan.prompt_length = 3;
    plan.choice = 1;
    plan.params = &params;
    plan.banned = banned;
    return plan;
  }
};

template <typename T>
bool same(std::span<const T> a, std::span<const T> b) {
  return std::vector<T>(a.begin(), a.end()) == std::vector<T>(b.begin(), b.end());
}

bool same(const SequencePlan& a, const SequencePlan& b) {
  return a.sequence == b.sequence && a.start == b.start && a.count == b.count && same(a.block_table, b.block_table) &&
         std::ranges::equal(a.window_tables, b.window_tables) && same(a.history, b.history) &&
         a.prompt_length == b.prompt_length && a.sample == b.sample && a.choice == b.choice && *a.params == *b.params &&
         a.prompt_logprobs == b.prompt_logprobs && same(a.banned, b.banned);
}

void expect_arrives(const SequencePlan& sent, const char* what) {
  StepPlan plan;
  plan.sequences = {sent};
  plan.rows = sent.count;
  plan.ended = {5, 6};
  PlanEncoder encoder;
  PlanDecoder decoder{PlanLimits{.window_tables = 2}};
  const auto received = decoder.decode(encoder.encode(plan));
  ASSERT_TRUE(received.ok()) << what << ": " << received.error().message;
  ASSERT_EQ((*received)->sequences.size(), 1U);
  EXPECT_TRUE(same((*received)->sequences[0], sent)) << what;
  EXPECT_EQ((*received)->rows, plan.rows) << what;
  EXPECT_EQ((*received)->ended, plan.ended) << what;
}

// Goal: no member of a plan is forgotten. Method: each changes alone, and arrives.
TEST(PlanCodec, SendsEveryMember) {
  const Sequence sequence;
  SequencePlan plan = sequence.plan();
  expect_arrives(plan, "nothing changed");
  plan.sequence = 8, expect_arrives(plan, "sequence"), plan = sequence.plan();
  plan.start = 0, expect_arrives(plan, "start"), plan = sequence.plan();
  plan.count = 3, expect_arrives(plan, "count"), plan = sequence.plan();
  plan.block_table = plan.block_table.first(1), expect_arrives(plan, "block_table"), plan = sequence.plan();
  const std::vector<std::vector<BlockId>> windows = {{5, 6}, {7, 9}};
  plan.window_tables = windows, expect_arrives(plan, "window_tables"), plan = sequence.plan();
  plan.history = plan.history.first(3), expect_arrives(plan, "history"), plan = sequence.plan();
  plan.prompt_length = 2, expect_arrives(plan, "prompt_length"), plan = sequence.plan();
  plan.sample = true, expect_arrives(plan, "sample"), plan = sequence.plan();
  plan.choice = 2, expect_arrives(plan, "choice"), plan = sequence.plan();
  plan.prompt_logprobs = true, expect_arrives(plan, "prompt_logprobs"), plan = sequence.plan();
  plan.banned = {}, expect_arrives(plan, "banned"), plan = sequence.plan();
  for (const SamplingParams& params : samples_with_one_change<SamplingParams>(3)) {
    plan.params = &params;
    expect_arrives(plan, "params");
  }
}

// Goal: what a worker remembers of a sequence is what the engine has sent. Method: a sequence grows over three steps,
// as it does while it is decoded.
TEST(PlanCodec, ContinuesASequence) {
  PlanEncoder encoder;
  PlanDecoder decoder{PlanLimits{.window_tables = 2}};
  Sequence sequence;
  for (int step = 0; step < 3; ++step) {
    SequencePlan sent = sequence.plan();
    sent.start = static_cast<std::int32_t>(sequence.history.size()) - 1;
    sent.count = 1;
    sent.sample = true;
    if (step == 1) sent.banned = {};
    StepPlan plan;
    plan.sequences = {sent};
    plan.rows = 1;
    const auto received = decoder.decode(encoder.encode(plan));
    ASSERT_TRUE(received.ok()) << received.error().message;
    EXPECT_TRUE(same((*received)->sequences.at(0), sent)) << "step " << step;
    sequence.history.push_back(20 + step);
    sequence.blocks.back() = 30 + step;
    sequence.blocks.push_back(40 + step);
    sequence.windows[0].push_back(50 + step);
    sequence.windows[1].push_back(60 + step);
  }
}

// Goal: a worker computes nothing that a plan of a broken or hostile peer asks for beyond its model and its cache, and
// nothing that a plan points to moves. Method: plans that the engine would not make, as its own encoder writes them.
std::string refusal_of(const std::vector<SequencePlan>& sequences) {
  StepPlan plan;
  plan.sequences = sequences;
  PlanEncoder encoder;
  PlanDecoder decoder(PlanLimits{.vocab_size = 100, .kv_blocks = 10, .block_size = 2, .window_tables = 2});
  const auto received = decoder.decode(encoder.encode(plan));
  return received.ok() ? "" : received.error().message;
}

TEST(PlanCodec, RefusesWhatAWorkerCannotCompute) {
  const Sequence plain;
  EXPECT_EQ(refusal_of({plain.plan()}), "");
  EXPECT_THAT(refusal_of({plain.plan(), plain.plan()}), testing::HasSubstr("there twice"));
  Sequence changed = plain;
  changed.history[1] = 100;
  EXPECT_THAT(refusal_of({changed.plan()}), testing::HasSubstr("token id 100"));
  changed = plain;
  changed.blocks[1] = 10;
  EXPECT_THAT(refusal_of({changed.plan()}), testing::HasSubstr("block id 10"));
  SequencePlan rows = plain.plan();
  rows.count = 4;
  EXPECT_THAT(refusal_of({rows}), testing::HasSubstr("rows outside"));
  rows = plain.plan();
  rows.block_table = rows.block_table.first(1);
  EXPECT_THAT(refusal_of({rows}), testing::HasSubstr("without a block"));
  changed = plain;
  changed.windows[1][0] = 10;
  EXPECT_THAT(refusal_of({changed.plan()}), testing::HasSubstr("block id 10"));
  changed = plain;
  changed.windows[0].pop_back();
  rows = changed.plan();
  EXPECT_THAT(refusal_of({rows}), testing::HasSubstr("without a block"));
}

template <typename T>
class ResultFields : public testing::Test {};
using Results = testing::Types<SequenceResult, StepResult>;
TYPED_TEST_SUITE(ResultFields, Results);

TYPED_TEST(ResultFields, EachCrossesTheWire) {
  const auto sent = sample_value<TypeParam>(3);
  for (const auto& changed : samples_with_one_change<TypeParam>(3)) {
    ASSERT_FALSE(changed == sent);
    const auto received = archive::decode_value<TypeParam>(archive::encode_value(changed), "a result");
    ASSERT_TRUE(received.ok()) << received.error().message;
    EXPECT_TRUE(*received == changed);
  }
}

}  // namespace
}  // namespace chorus
