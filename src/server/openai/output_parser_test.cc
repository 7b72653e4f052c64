#include "server/openai/output_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// "name(arguments)" of each call, and what is content.
struct Taken {
  std::string reasoning, content;
  std::vector<std::string> calls;
  bool operator==(const Taken&) const = default;
};
void PrintTo(const Taken& taken, std::ostream* out) {
  *out << taken.reasoning << " | " << taken.content << " | " << testing::PrintToString(taken.calls);
}

OutputRules with_calls(const char* format) {
  OutputRules rules;
  rules.tool_calls = find_tool_call_format(format);
  EXPECT_NE(rules.tool_calls, nullptr) << format;
  return rules;
}

Taken taken(OutputParser& parser, const std::vector<std::string>& pieces) {
  OutputDelta all;
  for (const std::string& piece : pieces) {
    OutputDelta delta;
    parser.push(piece, &delta);
    all.append(std::move(delta));
  }
  parser.finish(&all);
  Taken result{all.reasoning, all.content, {}};
  for (const ToolCallDelta& call : all.calls) {
    EXPECT_EQ(call.index, result.calls.size());
    result.calls.push_back(call.name.value_or("?") + "(" + call.arguments + ")");
  }
  EXPECT_EQ(parser.has_calls(), !all.calls.empty());
  return result;
}

Taken whole(const OutputRules& rules, const std::string& text) {
  OutputParser parser(rules);
  return taken(parser, {text});
}

std::vector<std::string> cut(const std::string& text, std::mt19937& random) {
  std::vector<std::string> pieces;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = 1 + random() % (random() % 2 == 0 ? 3 : 20);
    pieces.push_back(text.substr(at, size));
    at += size;
  }
  return pieces;
}

TEST(ToolCalls, HermesLosesNothingOfAMarkerThatBreaksOff) {
  const OutputRules rules = with_calls("hermes");
  const std::string call = R"(<tool_call>{"name": "f", "arguments": {}})";
  EXPECT_EQ(whole(rules, call + "</p>x"), (Taken{"", "</p>x", {"f({})"}}));
  EXPECT_EQ(whole(rules, call + "</tool_cap>"), (Taken{"", "</tool_cap>", {"f({})"}}));
  EXPECT_EQ(whole(rules, "<tool<tool_call"), (Taken{"", "<tool<tool_call", {}}));
}

TEST(ToolCalls, Hermes) {
  const OutputRules rules = with_calls("hermes");
  EXPECT_EQ(whole(rules, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\"}}\n</tool_call>"),
            (Taken{"", "", {R"(f({"a": "}\"{"}))"}}));
  EXPECT_EQ(whole(rules,
                  "Let me see.\n<tool_call>{\"arguments\": {\"x\": [1, {}]}, \"name\": \"g\"}</tool_call>\n"
                  "<tool_call>{\"name\": \"h\", \"id\": 5, \"arguments\": {}}</tool_call>\n"),
            (Taken{"", "Let me see.", {R"(g({"x": [1, {}]}))", "h({})"}}));
  // No call: what stands there is content.
  for (const char* const text :
       {"<tool_call>none</tool_call>", "a < b <tool", "<tool_call>{\"name\": 5, \"arguments\": {}}",
        "<tool_call>{\"name\": \"f\"}</tool_call>", " \n text \n", "<tool_call>{", "<<tool_call",
        "<tool_call>{\"name\": \"\", \"arguments\": {}}"}) {
    EXPECT_EQ(whole(rules, text), (Taken{"", text, {}}));
  }
  // The end is left out, and one is cut off.
  EXPECT_EQ(
      whole(rules,
            "<tool_call>{\"name\": \"f\", \"arguments\": {}}<tool_call>{\"name\": \"g\", \"arguments\": {\"a\": "),
      (Taken{"", "", {"f({})", "g({\"a\": )"}}));
  EXPECT_EQ(whole(rules, "<tool_call>{\"name\": \"f\", \"arguments\": {}} and\n more"),
            (Taken{"", "and\n more", {"f({})"}}));
  // The arguments' JSON as a string; a name with escapes.
  EXPECT_EQ(whole(rules, "<tool_call>{\"name\": \"\\u0066\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>"),
            (Taken{"", "", {R"(f({"a": 1}))"}}));
}

TEST(ToolCalls, Llama) {
  for (const char* const format : {"llama3_json", "llama4_json"}) {
    const OutputRules rules = with_calls(format);
    EXPECT_EQ(whole(rules, R"({"name": "f", "parameters": {"a": null}})"), (Taken{"", "", {R"(f({"a": null}))"}}));
    EXPECT_EQ(whole(rules,
                    "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"arguments\": {}}; {\"name\": \"g\", "
                    "\"parameters\": 5}\n"),
              (Taken{"", "", {"f({})", "g(5)"}}));
    for (const char* const text : {R"({"name": "Bob", "age": 3})", "text {\"name\": \"f\", \"parameters\": {}}", "{}",
                                   "<|python_tag|>print(1)", "<|python", "\n", "{\"name\": \"f\"", "[1, 2]"}) {
      EXPECT_EQ(whole(rules, text), (Taken{"", text, {}}));
    }
    EXPECT_EQ(whole(rules, R"({"name": "f", "parameters": {}} and so on)"), (Taken{"", "and so on", {"f({})"}}));
  }
}

TEST(ToolCalls, Mistral) {
  const OutputRules rules = with_calls("mistral");
  EXPECT_EQ(whole(rules, R"([TOOL_CALLS] [{"name": "f", "arguments": {"a": [1]}}, {"name": "g", "arguments": {}}])"),
            (Taken{"", "", {R"(f({"a": [1]}))", "g({})"}}));
  EXPECT_EQ(
      whole(rules, R"(So:[TOOL_CALLS]get_a.b-c{"a": 1}[TOOL_CALLS]g[ARGS]{}[TOOL_CALLS]h[CALL_ID]aB3456789[ARGS] {})"),
      (Taken{"", "So:", {R"(get_a.b-c({"a": 1}))", "g({})", "h({})"}}));
  for (const char* const text : {"[TOOL_CALLS]", "[TOOL_CALLS][]", "[TOOL_CALLS] [5]", "[TOOL_CALLS]two words{}",
                                 "[1, [2]]", "[TOOL_CALLS]f[ARG]{}", "[TOOL_CALLS]f[CALL_ID]a-b[ARGS]{}", "[TOOL",
                                 "[TOOL_CALLS]f", "[TOOL_CALLS][{\"name\": \"f\"}]", "[TOOL_CALLS]\xc3\xa4{}"}) {
    EXPECT_EQ(whole(rules, text), (Taken{"", text, {}}));
  }
}

TEST(ToolCalls, OneAloneWhereTheyAreNotParallel) {
  OutputRules rules = with_calls("mistral");
  rules.parallel_tool_calls = false;
  EXPECT_THAT(whole(rules, "[TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g{}").calls, ElementsAre("f({\"a\": 1})"));
}

TEST(ToolCalls, ArgumentsComeAsTheyAreWritten) {
  OutputParser parser(with_calls("hermes"));
  OutputDelta delta;
  parser.push("<tool_call>{\"name\": \"f\", \"argu", &delta);
  EXPECT_TRUE(delta.is_empty());
  parser.push("ments\": {\"text\": \"Once", &delta);
  ASSERT_EQ(delta.calls.size(), 1U);
  EXPECT_EQ(delta.calls[0].name, "f");
  EXPECT_EQ(delta.calls[0].arguments, "{\"text\": \"Once");
  OutputDelta next;
  parser.push(" upon", &next);
  EXPECT_EQ(next.calls[0].name, std::nullopt);
  EXPECT_EQ(next.calls[0].arguments, " upon");
}

OutputRules with_reasoning(ReasoningStart start) {
  OutputRules rules;
  rules.reasoning = start;
  return rules;
}

TEST(Reasoning, IsTakenApart) {
  const auto thinks = with_reasoning(ReasoningStart::unless_marked_thoughts),
             marked = with_reasoning(ReasoningStart::unless_marked_answer),
             answers = with_reasoning(ReasoningStart::answer);
  EXPECT_EQ(whole(thinks, "so\n</think>\n\nYes"), (Taken{"so\n", "\n\nYes", {}}));
  EXPECT_EQ(whole(thinks, "\n<think>so</think>Yes </think>"), (Taken{"so", "Yes </think>", {}}));
  EXPECT_EQ(whole(thinks, " it < is </thin"), (Taken{" it < is </thin", "", {}}));
  EXPECT_EQ(whole(thinks, "<thi"), (Taken{"<thi", "", {}}));
  EXPECT_EQ(whole(thinks, "\n</think>Yes"), (Taken{"\n", "Yes", {}}));
  EXPECT_EQ(whole(marked, "<think>so</think>Yes"), (Taken{"so", "Yes", {}}));
  EXPECT_EQ(whole(marked, "\n <thinly> Yes</think>"), (Taken{"", "\n <thinly> Yes</think>", {}}));
  EXPECT_EQ(whole(marked, " <"), (Taken{"", " <", {}}));
  EXPECT_EQ(whole(answers, "<think>Yes"), (Taken{"", "<think>Yes", {}}));
}

TEST(Reasoning, BeginsWhereThePromptEnds) {
  const auto start = [](ReasoningStyle style, const char* prompt, bool goes_on = false) {
    return reasoning_start(style, prompt, goes_on);
  };
  for (const ReasoningStyle style : {ReasoningStyle::deepseek_r1, ReasoningStyle::qwen3}) {
    EXPECT_EQ(start(style, "<assistant><think>\n"), ReasoningStart::unless_marked_thoughts);
    EXPECT_EQ(start(style, "<assistant><think>\n\n</think>\n\n"), ReasoningStart::answer);
    EXPECT_EQ(start(style, "<think>so far", true), ReasoningStart::unless_marked_thoughts);
    EXPECT_EQ(start(style, "<think>so</think>and", true), ReasoningStart::answer);
  }
  EXPECT_EQ(start(ReasoningStyle::deepseek_r1, "<assistant>"), ReasoningStart::unless_marked_thoughts);
  EXPECT_EQ(start(ReasoningStyle::qwen3, "<assistant>"), ReasoningStart::unless_marked_answer);
}

TEST(Reasoning, ComesBeforeCallsAndMayBeLeftOut) {
  OutputRules rules = with_calls("hermes");
  rules.reasoning = ReasoningStart::unless_marked_thoughts;
  const std::string text = "a <tool_call> here</think>\n\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
  EXPECT_EQ(whole(rules, text), (Taken{"a <tool_call> here", "", {"f({})"}}));
  rules.shows_reasoning = false;
  EXPECT_EQ(whole(rules, text), (Taken{"", "", {"f({})"}}));
}

// Texts that come near to what the parsers look for.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> words = {"<tool_call>",
                                                 "</tool_call>",
                                                 "<tool",
                                                 "[TOOL_CALLS]",
                                                 "[ARGS]",
                                                 "[CALL_ID]",
                                                 "<|python_tag|>",
                                                 "<think>",
                                                 "</think>",
                                                 "{\"name\": \"f\", \"arguments\": {\"a\": \"b\"}}",
                                                 "{\"name\": \"g\", \"parameters\": ",
                                                 "{\"arguments\": [",
                                                 "{",
                                                 "}",
                                                 "[",
                                                 "]",
                                                 "\"",
                                                 "\\",
                                                 ",",
                                                 ":",
                                                 ";",
                                                 " ",
                                                 "\n",
                                                 "name",
                                                 "\"name\"",
                                                 "\"arguments\"",
                                                 "5",
                                                 "null",
                                                 "ä",
                                                 "text",
                                                 "<",
                                                 "f{}"};
  std::string text;
  for (auto count = random() % 12; count > 0; --count) text += words[random() % words.size()];
  return text;
}

TEST(OutputParser, HoweverTheTextIsCutItSaysTheSame) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 20'000; ++trial) {
    OutputRules rules;
    const auto formats = tool_call_formats();
    if (random() % 4 > 0) rules.tool_calls = &formats[random() % formats.size()];
    if (random() % 2 > 0) rules.reasoning = static_cast<ReasoningStart>(random() % 3);
    const std::string text = random_text(random);
    OutputParser parser(rules);
    ASSERT_EQ(taken(parser, cut(text, random)), whole(rules, text)) << text;
  }
}

// Nothing is made up: what has no call is its own content.
TEST(OutputParser, LosesNothingWhereThereIsNoCall) {
  std::mt19937 random(12);
  int plain = 0;
  for (int trial = 0; trial < 20'000; ++trial) {
    const auto formats = tool_call_formats();
    OutputRules rules;
    rules.tool_calls = &formats[random() % formats.size()];
    const std::string text = random_text(random);
    const Taken told = whole(rules, text);
    if (!told.calls.empty()) continue;
    ++plain;
    ASSERT_EQ(told.content, text);
  }
  EXPECT_GT(plain, 10'000);
}

TEST(ToolCalls, AFormatIsFoundByItsName) {
  EXPECT_EQ(find_tool_call_format("nobody"), nullptr);
  EXPECT_TRUE(find_tool_call_format("mistral")->short_ids);
  EXPECT_THAT(reasoning_style("nobody"), testing::Eq(std::nullopt));
}

}  // namespace
}  // namespace chorus
