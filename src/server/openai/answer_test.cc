#include "server/openai/answer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "testing/text_testing.h"

namespace chorus {
namespace {

TextDelta delta_of(TokenId token, float logprob, std::vector<TokenLogprob> top) {
  TextDelta delta;
  delta.text = std::string(1, static_cast<char>(token));
  delta.token = token;
  delta.logprobs = PositionLogprobs{{token, logprob}, std::move(top)};
  return delta;
}

// As real ones: what is no whole character is U+FFFD.
class CharacterTokenizer final : public ByteTokenizer {
 public:
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip) const override {
    if (ids.size() == 1 && ids[0] >= 0x80) return std::string("\uFFFD");
    return ByteTokenizer::decode(ids, skip);
  }
};

class AnswerTest : public testing::Test {
 protected:
  AnswerTest() {
    request.inputs.emplace_back();
    part.append(delta_of('a', -0.5F, {{'a', -0.5F}, {'b', -1.5F}}));
    part.append(delta_of('c', -2.5F, {{'b', -0.25F}, {'d', -1.0F}}));
    prompt.prompt = {"xy", {'x', 'y'}};
    prompt.logprobs = {{{'y', -3.0F}, {{'z', -0.125F}}}};
  }
  AnswerWriter writer(bool as_ids = false) {
    return AnswerWriter({"id-1", 7, "model", {"key", false}}, request, TokenLabel(tokenizer, as_ids));
  }
  // The member "logprobs" of the only choice.
  static std::string logprobs_of(const std::string& json) {
    const std::size_t begin = json.find("\"logprobs\":") + 11;
    return json.substr(begin, json.find(",\"finish_reason\"") - begin);
  }

  CharacterTokenizer tokenizer;
  GenerationRequest request;
  AnswerPart part;
  AnswerPrompt prompt;
};

TEST_F(AnswerTest, SeveralDeltasAreOnePart) {
  TextDelta last;
  last.finish = FinishReason::stop;
  last.stop_string = "end";
  part.append(std::move(last));
  EXPECT_EQ(part.text, "ac");
  EXPECT_EQ(part.token_ids, (std::vector<TokenId>{'a', 'c'}));
  EXPECT_EQ(part.logprobs.size(), 2U);
  const AnswerChoice choice{3, &part};
  EXPECT_EQ(writer().whole({&choice, 1}, {2, 5}),
            R"({"id":"id-1","object":"text_completion","created":7,"model":"model","choices":[{"index":3,"text":"ac",)"
            R"("logprobs":null,"finish_reason":"stop","stop_reason":"end"}],)"
            R"("usage":{"prompt_tokens":2,"total_tokens":7,"completion_tokens":5}})");
}

TEST_F(AnswerTest, LogprobsOfACompletion) {
  request.logprobs = true;
  const AnswerChoice choice{0, &part, nullptr, 10};
  EXPECT_EQ(logprobs_of(writer().chunk(choice, {})),
            R"({"tokens":["a","c"],"token_logprobs":[-0.5,-2.5],"top_logprobs":[{"a":-0.5,"b":-1.5},)"
            R"({"c":-2.5,"b":-0.25,"d":-1.0}],"text_offset":[10,11]})");
  EXPECT_EQ(writer().text_offset_after(choice), 12U);
}

TEST_F(AnswerTest, AnEchoBeginsWithATokenThatNothingPredicts) {
  request.logprobs = request.echo = true;
  const AnswerChoice choice{0, &part, &prompt};
  const std::string json = writer().chunk(choice, {});
  EXPECT_NE(json.find(R"("text":"xyac")"), json.npos) << json;
  EXPECT_NE(
      json.find(
          R"("tokens":["x","y","a","c"],"token_logprobs":[null,-3.0,-0.5,-2.5],"top_logprobs":[null,{"y":-3.0,"z":-0.125},)"),
      json.npos)
      << json;
  request.prompt_alone = true;
  EXPECT_NE(writer().chunk(choice, {}).find(R"("text":"xy")"), json.npos);
}

TEST_F(AnswerTest, LogprobsOfAChat) {
  request.kind = GenerationRequest::Kind::chat;
  request.logprobs = true;
  part.logprobs.resize(1);
  const AnswerChoice choice{0, &part};
  EXPECT_EQ(
      logprobs_of(writer().chunk(choice, {})),
      R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]},)"
      R"({"token":"b","logprob":-1.5,"bytes":[98]}]}],"refusal":null})");
}

TEST_F(AnswerTest, TokensAsIdsAndOnesWithTheSameText) {
  request.logprobs = true;
  part = {};
  part.append(delta_of(0xe2, -std::numeric_limits<float>::infinity(), {{0xe2, -9.0F}, {0xe3, -10.0F}}));
  const AnswerChoice choice{0, &part};
  const std::string json = writer().chunk(choice, {});
  // Two parts of characters look the same: the more likely one keeps the name. JSON has no infinity.
  EXPECT_EQ(logprobs_of(json),
            "{\"tokens\":[\"\uFFFD\"],\"token_logprobs\":[-9999.0],\"top_logprobs\":[{\"\uFFFD\":-9.0}],\"text_"
            "offset\":[0]}");
  EXPECT_NE(writer(true).chunk(choice, {}).find(R"("top_logprobs":[{"token_id:226":-9.0,"token_id:227":-10.0}])"),
            json.npos);
}

TEST_F(AnswerTest, LogprobsOfThePrompt) {
  request.prompt_logprobs = request.return_token_ids = true;
  const AnswerChoice choice{0, &part, &prompt};
  const std::string json = writer().chunk(choice, {});
  EXPECT_NE(json.find(R"("token_ids":[97,99],"prompt_token_ids":[120,121],"prompt_logprobs":[null,)"
                      R"({"121":{"logprob":-3.0,"rank":null,"decoded_token":"y"},)"
                      R"("122":{"logprob":-0.125,"rank":1,"decoded_token":"z"}}])"),
            json.npos)
      << json;
}

TEST_F(AnswerTest, EventsAndIds) {
  EXPECT_EQ(server_sent_event("{}"), "data: {}\n\n");
  EXPECT_EQ(answer_id(GenerationRequest::Kind::chat, "x"), "chatcmpl-x");
  EXPECT_EQ(answer_id(GenerationRequest::Kind::completion, "x"), "cmpl-x");
  EXPECT_EQ(writer().opening(0), std::nullopt);
}

}  // namespace
}  // namespace chorus
