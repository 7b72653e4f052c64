// Text engines one after the other on one fleet of toy engines: real processes (main() at the end).
#include <gtest/gtest.h>

#include "frontend/offline.h"
#include "testing/fleet_testing.h"

namespace chorus::testing_fleet {
namespace {

class LetterStream final : public TokenStream {
 public:
  void begin_after(std::span<const std::int32_t>) override {}
  void push(std::int32_t token, std::string& settled) override {
    settled.push_back(static_cast<char>('a' + token % 26));
  }
  std::string_view tentative() const override { return {}; }
  void finish(std::string&) override {}
};

// Each of the toy's tokens is a letter.
class LetterTokenizer final : public Tokenizer {
 public:
  Result<std::vector<std::int32_t>> encode(std::string_view, bool) const override {
    return fail(ErrorCode::invalid_argument, "prompts are token ids here");
  }
  Result<std::string> decode(std::span<const std::int32_t> ids, bool) const override {
    std::string text;
    LetterStream stream;
    for (const std::int32_t id : ids) stream.push(id, text);
    return text;
  }
  std::unique_ptr<TokenStream> start_decoding(bool) const override { return std::make_unique<LetterStream>(); }
  std::int32_t vocab_size() const override { return 1000; }
  std::optional<std::int32_t> token_to_id(std::string_view) const override { return std::nullopt; }
  std::optional<std::string> id_to_token(std::int32_t) const override { return std::nullopt; }
  bool is_special(std::int32_t) const override { return false; }
};

std::vector<GenerationInput> inputs_with_a_stop_string(int count) {
  std::vector<GenerationInput> inputs(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    GenerationInput& input = inputs[static_cast<std::size_t>(i)];
    input.prompt_token_ids = {7, 1 + i};
    input.options.params.max_tokens = 100;
    input.options.params.ignore_eos = true;
    input.options.stop = {"e"};
  }
  return inputs;
}

std::vector<std::string> texts_of(Fleet& fleet, const EngineConfig& config, std::vector<GenerationInput> inputs) {
  TextEngine engine(fleet, std::make_shared<LetterTokenizer>(), config, toy_model_config(), seed_by_prompt(0));
  std::vector<std::string> texts(inputs.size());
  std::vector<OfflineRow> rows = deal(std::move(inputs), config);
  OfflineWork work;
  work.next = rows_of(&rows);
  work.on_finished = [&](std::size_t index, GenerationOutput&& output) -> Result<void> {
    texts[index] = output.error ? *output.error : output.choices.at(0).text;
    return {};
  };
  const auto done = run_offline(engine, work);
  EXPECT_TRUE(done.ok()) << done.error().message;
  return texts;
}

// The engine computes on after the stop string until it is told; what it says then must not be taken for the next
// one's requests.
TEST(TextEngines, OneAfterTheOtherOnAFleetHearNothingOfEachOthersRequests) {
  const EngineConfig config = toy_engine_config(2, "slow");
  auto fleet = start_toy_fleet(config);
  ASSERT_TRUE(fleet.ok());
  const std::vector<GenerationInput> inputs = inputs_with_a_stop_string(64);
  const std::vector<std::string> expected = texts_of(**fleet, config, inputs);
  const std::vector<ReplicaStatus> before = (*fleet)->replicas();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(texts_of(**fleet, config, {inputs[i]}), std::vector{expected[i]}) << "input " << i;
  }
  const std::vector<ReplicaStatus> after = (*fleet)->replicas();
  for (const std::size_t rank : {0u, 1u}) EXPECT_EQ(after[rank].pid, before[rank].pid) << "rank " << rank << " died";
}

}  // namespace
}  // namespace chorus::testing_fleet

int main(int argc, char** argv) {
  if (chorus::is_engine_process(argc, argv)) {
    return chorus::engine_process_main(chorus::engine_socket_fd, chorus::testing_fleet::start_toy);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
