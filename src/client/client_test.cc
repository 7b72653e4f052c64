#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/answer_stream.h"
#include "client/error_text.h"
#include "client/http_client.h"
#include "client/sse_reader.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* hello =
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n: alive\n\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"H\xc3\xa9\"}}]}\r\n\r\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"llo\"},\"finish_reason\":\"stop\"}]}\r\r"
    "data: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n";

TEST(SseReader, JoinsDataLinesAndSkipsOtherFields) {
  std::vector<std::string> events;
  SseReader reader;
  const auto take = [&events](std::string_view data) -> Result<void> {
    events.emplace_back(data);
    return {};
  };
  ASSERT_TRUE(reader.feed("event: x\ndata: a\ndata:b\nid: 1\n\n\n\ndata\n\ndata:\n\ndata: unfinished", take).ok());
  EXPECT_THAT(events, ElementsAre("a\nb", ""));
}

TEST(SseReader, RefusesALineAndAnEventOverTheLimit) {
  SseReader reader;
  const auto take = [](std::string_view) { return Result<void>(); };
  const std::string piece(SseReader::line_bytes_max, 'a');
  ASSERT_TRUE(reader.feed(piece, take).ok());
  EXPECT_THAT(reader.feed("a", take).error().message, HasSubstr("longer than 1048576 bytes"));
  SseReader events;
  Result<void> fed;
  for (int i = 0; i < 5 && fed.ok(); ++i) fed = events.feed("data:" + piece.substr(5) + "\n", take);
  ASSERT_FALSE(fed.ok());
  EXPECT_THAT(fed.error().message, HasSubstr("an event is longer"));
}

TEST(AnswerStream, GivesTheSameTextWhereverAPieceEnds) {
  const std::string_view whole = hello;
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    std::string text;
    AnswerStream stream([&text](const AnswerPiece& piece) { text += piece.text; });
    ASSERT_TRUE(stream.feed(whole.substr(0, cut)).ok());
    ASSERT_TRUE(stream.feed(whole.substr(cut)).ok());
    EXPECT_EQ(text, "H\xc3\xa9llo");
    EXPECT_TRUE(stream.finish().ok());
  }
}

TEST(AnswerStream, SaysWhatIsWrongWithAStream) {
  const auto fed = [](std::string_view bytes) {
    AnswerStream stream([](const AnswerPiece&) {});
    const Result<void> result = stream.feed(bytes);
    return result.ok() ? stream.finish() : result;
  };
  EXPECT_THAT(fed("data: {\"choices\":[]}\n\n").error().message, HasSubstr("broke off"));
  EXPECT_THAT(fed("data: {\"error\":{\"message\":\"no \\u001b[2J\"}}\n\n").error().message, "the server: no \\x1b[2J");
  EXPECT_THAT(fed("data: {\"error\":7}\n\n").error().message, HasSubstr("without a message"));
  for (const char* broken : {"{", "[1]", "{\"choices\":3}", "\"\xff\"", "{\"a\":1,\"a\":1}"}) {
    const Result<void> result = fed(std::string("data: ") + broken + "\n\n");
    ASSERT_FALSE(result.ok()) << broken;
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << broken;
  }
  EXPECT_TRUE(fed("data: {\"choices\":[7]}\n\ndata: {\"choices\":[{\"delta\":[]}]}\n\ndata: [DONE]\n\n").ok());
}

TEST(AnswerStream, ReadsCompletionsThoughtsAndUsage) {
  std::string text, reasoning;
  std::vector<bool> choices;
  std::optional<TokenUsage> usage;
  AnswerStream stream([&](const AnswerPiece& piece) {
    text += piece.text;
    reasoning += piece.reasoning;
    choices.push_back(piece.has_choice);
    if (piece.usage) usage = piece.usage;
  });
  ASSERT_TRUE(
      stream
          .feed("data: {\"choices\":[{\"text\":\"Once\"}]}\n\ndata: {\"choices\":[{\"text\":null}],\"usage\":null}\n\n"
                "data: {\"choices\":[{\"delta\":{\"reasoning\":\"Hm.\"}}]}\n\n"
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":-1}}\n\ndata: [DONE]\n\n")
          .ok());
  EXPECT_EQ(text, "Once");
  EXPECT_EQ(reasoning, "Hm.");
  EXPECT_THAT(choices, ElementsAre(true, true, true, false));
  ASSERT_TRUE(usage.has_value());
  EXPECT_EQ(usage->prompt_tokens, 7U);
  EXPECT_EQ(usage->completion_tokens, 0U);
}

TEST(TerminalText, SpellsControlCharacters) {
  EXPECT_EQ(terminal_text("a\tb\nc\x1b[2J\x07\x7f\xc2\x9b\xc3\xa9\r"), "a\tb\nc\\x1b[2J\\x07\\x7f\\x9b\xc3\xa9\\x0d");
}

TEST(Endpoint, ReadsUrls) {
  const auto plain = parse_url("http://example:81/");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->host, "example");
  EXPECT_EQ(plain->port, 81);
  const auto six = parse_url("http://[::1]:8000");
  ASSERT_TRUE(six.ok());
  EXPECT_EQ(six->host, "::1");
  EXPECT_EQ(six->host_field(), "[::1]:8000");
  EXPECT_EQ(parse_url("http://example")->port, 80);
  EXPECT_EQ(parse_url("unix:/run/x")->path, "/run/x");
  EXPECT_THAT(parse_url("https://example").error().message, HasSubstr("plain HTTP"));
  for (const char* wrong : {"http://", "http://a:0", "http://a:99999", "http://a:8x", "http://a/v1", "ftp://a",
                            "unix:", "http://a b", "http://[::1", "http://a@b"}) {
    EXPECT_FALSE(parse_url(wrong).ok()) << wrong;
  }
}

}  // namespace
}  // namespace chorus
