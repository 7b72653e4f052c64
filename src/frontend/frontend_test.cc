#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "frontend/offline.h"
#include "frontend/output_line.h"
#include "frontend/prompt_line.h"
#include "frontend/text_engine.h"
#include "testing/text_testing.h"

namespace chorus {
namespace {

struct OneCall {
  EchoFleet fleet;
  EngineConfig config;
  ModelConfig model = byte_model();
  std::vector<GenerationOutput> outputs;
  Result<void> status;

  void generate(std::vector<GenerationInput> inputs, std::optional<Nanoseconds> deadline = {},
                bool stop_at_once = false) {
    TextEngine engine(fleet, std::make_shared<ByteTokenizer>(), config, model, seed_by_prompt(config.seed));
    outputs.resize(inputs.size());
    std::vector<OfflineRow> rows = deal(std::move(inputs), config);
    OfflineWork work;
    work.next = rows_of(&rows);
    work.on_finished = [this](std::size_t index, GenerationOutput&& output) -> Result<void> {
      outputs[index] = std::move(output);
      return {};
    };
    work.interrupted = [stop_at_once] { return stop_at_once; };
    work.deadline = deadline;
    work.deadline_message = "batch_timeout of 1 s ran out";
    status = run_offline(engine, work);
  }
};

GenerationInput text_input(const std::string& prompt) {
  GenerationInput input;
  input.prompt = prompt;
  return input;
}

TEST(Offline, PutsTheChoicesOfEachRequestTogether) {
  OneCall run;
  std::vector<GenerationInput> inputs = {text_input("a"), text_input("b")};
  inputs[1].options.params.n = 2;
  inputs[1].options.params.max_tokens = 3;
  run.generate(inputs);
  ASSERT_TRUE(run.status.ok());
  EXPECT_EQ(run.outputs[0].choices.at(0).text, "one two thre");  // the token that ends is silent
  EXPECT_EQ(run.outputs[0].choices.at(0).token_ids.size(), 13U);
  ASSERT_EQ(run.outputs[1].choices.size(), 2U);
  EXPECT_EQ(run.outputs[1].choices[1].text, "one");
  EXPECT_EQ(run.outputs[1].choices[1].finish_reason, FinishReason::length);
}

TEST(Offline, EveryEosButTheTokenizersOwnIsAStopReason) {
  std::vector<GenerationInput> inputs = {text_input("a"), text_input("b")};
  inputs[1].options.params.ignore_eos = true;  // then the token came as a stop id of the request
  OneCall other, own;
  other.model.eos_token_id = '.';
  other.generate(inputs);
  EXPECT_EQ(other.outputs[0].choices.at(0).stop_token, 'e');
  own.model.eos_token_id = 'e';
  own.generate(inputs);
  EXPECT_EQ(own.outputs[0].choices.at(0).finish_reason, FinishReason::stop);
  EXPECT_EQ(own.outputs[0].choices.at(0).stop_token, std::nullopt);
  EXPECT_EQ(own.outputs[1].choices.at(0).stop_token, 'e');
}

TEST(Offline, AStopStringEndsTheTextAndTheChoice) {
  OneCall run;
  std::vector<GenerationInput> inputs = {text_input("a")};
  inputs[0].options.stop = {" tw"};
  run.generate(inputs);
  const GeneratedChoice& choice = run.outputs[0].choices.at(0);
  EXPECT_EQ(choice.text, "one");
  EXPECT_EQ(choice.token_ids.size(), 6U);
  EXPECT_EQ(choice.finish_reason, FinishReason::stop);
  EXPECT_EQ(choice.stop_string, " tw");
  EXPECT_EQ(run.fleet.aborted.size(), 1U);
}

TEST(Offline, ABadRowFailsAloneAndByName) {
  OneCall run;
  std::vector<GenerationInput> inputs = {text_input(""), text_input(std::string(64, 'x')), text_input("fine"),
                                         text_input("")};
  inputs[3].prompt_token_ids = {1, 256};
  run.generate(inputs);
  EXPECT_NE(run.outputs[0].error->find("empty"), std::string::npos);
  EXPECT_NE(run.outputs[1].error->find("64 tokens"), std::string::npos);
  EXPECT_FALSE(run.outputs[2].error.has_value());
  EXPECT_NE(run.outputs[3].error->find("token 1 is id 256"), std::string::npos);
}

TEST(Offline, RowsNotDoneByTheDeadlineFailWithItsReason) {
  OneCall run;
  run.fleet.silent = true;
  run.generate({text_input("a"), text_input("b")}, monotonic_now() - 1);
  ASSERT_TRUE(run.status.ok());
  EXPECT_EQ(run.outputs[1].error, "batch_timeout of 1 s ran out");
  EXPECT_EQ(run.fleet.aborted.size(), 2U);
}

TEST(Offline, AnInterruptEndsTheCall) {
  OneCall run;
  run.fleet.silent = true;
  run.generate({text_input("a")}, {}, true);
  ASSERT_FALSE(run.status.ok());
  EXPECT_EQ(run.status.error().code, ErrorCode::cancelled);
}

TEST(Offline, SeedsFollowThePromptAndNotTheOrder) {
  OneCall forward, backward;
  forward.generate({text_input("a"), text_input("b"), text_input("a")});
  backward.generate({text_input("b"), text_input("a"), text_input("a")});
  EXPECT_EQ(forward.fleet.seeds[0], backward.fleet.seeds[1]);
  EXPECT_EQ(forward.fleet.seeds[1], backward.fleet.seeds[0]);
  EXPECT_EQ(forward.fleet.seeds[0], forward.fleet.seeds[2]);
  EXPECT_NE(forward.fleet.seeds[0], forward.fleet.seeds[1]);
}

TEST(Offline, AssignsRanksAsConfigured) {
  OneCall run;
  run.config.parallel.data_parallel_size = 4;
  run.config.assignment = AssignmentName::modulo;
  std::vector<GenerationInput> inputs(6, text_input("a"));
  inputs[5].dp_rank = 3;
  run.generate(inputs);
  EXPECT_EQ(run.fleet.ranks, (std::vector<std::optional<int>>{0, 1, 2, 3, 0, 3}));
}

TEST(PromptLine, SaysWhatIsWrongWithALine) {
  const ChatFormat chat = *ChatFormat::load("nowhere");
  PromptLineParser parser(&chat, {});
  const auto message = [&parser](const char* line) {
    const auto parsed = parser.parse(line);
    const auto checked = parser.check(line);
    EXPECT_EQ(parsed.ok() ? "" : parsed.error().message, checked.ok() ? "" : checked.error().message);
    return parsed.ok() ? "" : parsed.error().message;
  };
  EXPECT_NE(message("{").find("JSON"), std::string::npos) << message("{");
  EXPECT_NE(message("[]").find("not a JSON object"), std::string::npos);
  EXPECT_NE(message("{\"id\": 1}").find("give one of"), std::string::npos);
  EXPECT_NE(message("{\"prompt\": \"x\", \"temprature\": 1}").find("did you mean temperature?"), std::string::npos);
  EXPECT_NE(message("{\"prompt\": \"x\", \"top_p\": 1.5}").find("top_p is 1.5"), std::string::npos);
  EXPECT_NE(message("{\"prompt_token_ids\": [1.5]}").find("whole numbers"), std::string::npos);
  EXPECT_EQ(message("{\"prompt\": \"x\", \"seed\": -1, \"stop\": [\"a\"], \"logit_bias\": {\"3\": 1.5}}"), "");
}

TEST(OutputLine, HoldsWhatTheRequestDetermines) {
  GenerationOutput output;
  output.prompt = {"p", {1, 2}};
  output.choices.push_back(
      {0, "t", {5}, FinishReason::stop, 5, std::nullopt, {{{5, -0.25F}, {{5, -0.25F}, {6, -1.5F}}}}});
  std::string line;
  append_output_line(Json("x"), output, {.logprobs = true}, &line);
  EXPECT_EQ(line,
            "{\"id\":\"x\",\"prompt\":\"p\",\"prompt_token_ids\":[1,2],\"outputs\":[{\"index\":0,\"text\":\"t\","
            "\"token_ids\":[5],"
            "\"finish_reason\":\"stop\",\"stop_reason\":5,\"logprobs\":[{\"token_id\":5,\"logprob\":-0.25,\"top\":[[5,-"
            "0.25],[6,-1.5]]}]}],"
            "\"error\":null}\n");
}

}  // namespace
}  // namespace chorus
