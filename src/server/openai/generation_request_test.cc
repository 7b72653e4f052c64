#include "server/openai/generation_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace chorus {
namespace {

using testing::HasSubstr;

class RequestTest : public testing::Test {
 protected:
  RequestTest() {
    model.names = {"stories", "alias"};
    model.chat = &chat;
    model.max_model_len = 64;
  }
  static Json json(const std::string& text) { return parse_json(text).value(); }
  Parsed<GenerationRequest> completion(const std::string& text, std::optional<std::string_view> rank = {}) {
    return parse_completion(json(text), model, rank);
  }
  GenerationRequest good(Parsed<GenerationRequest> parsed) {
    const ApiError* const error = std::get_if<ApiError>(&parsed);
    EXPECT_EQ(error, nullptr) << (error == nullptr ? "" : error->message);
    return error == nullptr ? std::get<GenerationRequest>(std::move(parsed)) : GenerationRequest{};
  }
  ApiError bad(const Parsed<GenerationRequest>& parsed) {
    EXPECT_TRUE(std::holds_alternative<ApiError>(parsed));
    return std::holds_alternative<ApiError>(parsed) ? std::get<ApiError>(parsed) : ApiError{};
  }
  Parsed<GenerationRequest> chat_request(const std::string& more) {
    return parse_chat(json(R"({"messages": [{"role": "user", "content": "Hi"}])" + more + "}"), model);
  }

  // A folder whose template is plain: "<user>Hi</user><assistant>".
  ChatFormat chat = ChatFormat::load(std::string(CHORUS_TEST_DATA) + "/server/chat").value();
  ServedModel model;
};

TEST_F(RequestTest, PromptsOfEachForm) {
  EXPECT_EQ(good(completion(R"({"prompt": "one"})")).inputs.at(0).prompt, "one");
  const GenerationRequest two = good(completion(R"({"prompt": ["one", "two"]})"));
  EXPECT_EQ(two.inputs.size(), 2U);
  EXPECT_EQ(two.inputs.at(1).prompt, "two");
  EXPECT_EQ(good(completion(R"({"prompt": [1, 2, 3]})")).inputs.at(0).prompt_token_ids,
            (std::vector<TokenId>{1, 2, 3}));
  const GenerationRequest lists = good(completion(R"({"prompt": [[1], [2, 3]]})"));
  EXPECT_EQ(lists.inputs.at(1).prompt_token_ids, (std::vector<TokenId>{2, 3}));
  for (const char* const wrong : {"{}", R"({"prompt": null})", R"({"prompt": 3})", R"({"prompt": []})",
                                  R"({"prompt": ["a", [1]]})", R"({"prompt": [1, "a"]})", R"({"prompt": [1.5]})",
                                  R"({"prompt": [-1]})", R"({"prompt": [99999999999]})", R"({"prompt": {"a": 1}})"}) {
    const ApiError error = bad(completion(wrong));
    EXPECT_EQ(error.status, 400) << wrong;
    EXPECT_EQ(error.param, "prompt") << wrong << error.message;
  }
}

TEST_F(RequestTest, EverySamplingOptionIsRead) {
  const GenerationRequest request =
      good(completion(R"({"prompt": "a", "model": "alias", "max_tokens": 5, "min_tokens": 1,
      "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": -1,
      "repetition_penalty": 1.5, "n": 3, "seed": 7, "stop": ["x", "y"], "stop_token_ids": [4], "ignore_eos": true,
      "include_stop_str_in_output": true, "skip_special_tokens": false, "logprobs": 2, "logit_bias": {"5": 1.5},
      "user": "ignored", "no_such_field": {"a": 1}})"));
  const GenerationOptions& options = request.inputs.at(0).options;
  const SamplingParams& params = options.params;
  EXPECT_EQ(params.max_tokens, 5U);
  EXPECT_EQ(params.min_tokens, 1U);
  EXPECT_EQ(params.temperature, 0.5);
  EXPECT_EQ(params.top_p, 0.9);
  EXPECT_EQ(params.top_k, 3);
  EXPECT_EQ(params.min_p, 0.1);
  EXPECT_EQ(params.presence_penalty, 1);
  EXPECT_EQ(params.frequency_penalty, -1);
  EXPECT_EQ(params.repetition_penalty, 1.5);
  EXPECT_EQ(params.n, 3U);
  EXPECT_EQ(options.seed, 7U);
  EXPECT_EQ(options.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(params.stop_token_ids, std::vector<TokenId>{4});
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_TRUE(options.include_stop_str_in_output);
  EXPECT_FALSE(options.skip_special_tokens);
  EXPECT_EQ(params.logprobs, 2U);
  EXPECT_EQ(params.logit_bias.size(), 1U);
  EXPECT_TRUE(request.logprobs);
  EXPECT_FALSE(params.prompt_logprobs);
}

TEST_F(RequestTest, DefaultsAreTheModels) {
  model.defaults.params.temperature = 0.6;
  const GenerationOptions completes = good(completion(R"({"prompt": "a"})")).inputs.at(0).options;
  EXPECT_EQ(completes.params.temperature, 0.6);
  EXPECT_EQ(completes.params.max_tokens, 16U);
  EXPECT_FALSE(completes.fills_context);
  EXPECT_FALSE(completes.seed);
  EXPECT_TRUE(good(chat_request("")).inputs.at(0).options.fills_context);
  EXPECT_FALSE(good(chat_request(R"(, "max_tokens": 3)")).inputs.at(0).options.fills_context);
  const GenerationOptions both =
      good(chat_request(R"(, "max_tokens": 3, "max_completion_tokens": 4)")).inputs.at(0).options;
  EXPECT_EQ(both.params.max_tokens, 4U);
  model.chat_fills_context = false;
  EXPECT_FALSE(good(chat_request("")).inputs.at(0).options.fills_context);
}

struct Wrong {
  const char* field;
  const char* value;
};

constexpr Wrong wrong_completions[] = {
    {"n", "0"},
    {"n", "129"},
    {"n", "\"2\""},
    {"n", "1.5"},
    {"temperature", "-0.1"},
    {"temperature", "\"hot\""},
    {"top_p", "0"},
    {"top_p", "1.1"},
    {"min_p", "2"},
    {"top_k", "-2"},
    {"max_tokens", "0"},
    {"max_tokens", "-1"},
    {"max_tokens", "1e30"},
    {"presence_penalty", "3"},
    {"frequency_penalty", "-3"},
    {"repetition_penalty", "0"},
    {"seed", "1.5"},
    {"stop", "[\"\"]"},
    {"stop", "7"},
    {"stop_token_ids", "[\"a\"]"},
    {"logit_bias", "{\"a\": 1}"},
    {"logit_bias", "{\"1\": 101}"},
    {"ignore_eos", "1"},
    {"stream", "\"yes\""},
    {"stream_options", "{}"},
    {"logprobs", "21"},
    {"logprobs", "-1"},
    {"logprobs", "true"},
    {"prompt_logprobs", "-1"},
    {"echo", "1"},
    {"suffix", "\"x\""},
    {"best_of", "2"},
    {"use_beam_search", "true"},
    {"structured_outputs", "{\"regex\": \"a\"}"},
    {"guided_json", "{\"type\": \"object\"}"},
    {"response_format", "{\"type\": \"json_object\"}"},
    {"response_format", "{}"},
    {"cache_salt", "\"a@b\""},
    {"bad_words", "[\"\"]"},
    {"allowed_token_ids", "[]"},
    {"truncate_prompt_tokens", "0"},
    {"truncation_side", "\"top\""},
    {"logprob_token_ids", "[-1]"},
    {"repetition_detection", "{\"a\": 1}"},
    {"priority", "1"},
    {"prompt_embeds", "\"x\""},
    {"request_id", "5"},
    {"return_token_ids", "0"},
    {"model", "7"},
};

constexpr Wrong wrong_chats[] = {
    {"messages", "[]"},
    {"messages", "\"Hi\""},
    {"messages", "[{\"content\": \"x\"}]"},
    {"messages", "[1]"},
    {"messages", "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]"},
    {"logprobs", "3"},
    {"top_logprobs", "2"},
    {"tool_choice", "\"auto\""},
    {"tool_choice", "\"required\""},
    {"echo", "true"},
    {"chat_template", "\"x\""},
    {"chat_template_kwargs", "[]"},
    {"max_completion_tokens", "0"},
    {"functions", "[{}]"},
    {"add_generation_prompt", "1"},
    {"tools", "{}"},
    {"tools", "[{\"type\": \"function\"}]"},
    {"parallel_tool_calls", "0"},
    {"include_reasoning", "0"},
};

TEST_F(RequestTest, WrongValuesNameTheirField) {
  for (const auto& [field, value] : wrong_completions) {
    const ApiError error = bad(completion(std::string(R"({"prompt": "a", ")") + field + "\": " + value + "}"));
    EXPECT_EQ(error.param, field) << value << ": " << error.message;
    EXPECT_EQ(error.status, 400) << field;
    EXPECT_THAT(error.message, HasSubstr(field)) << value;
  }
  for (const auto& [field, value] : wrong_chats) {
    Json body = json(R"({"messages": [{"role": "user", "content": "Hi"}]})");
    body[field] = json(value);
    EXPECT_EQ(bad(parse_chat(body, model)).param, field) << value;
  }
}

TEST_F(RequestTest, WhatIsSaidToBeNotWantedIsNotRefused) {
  good(completion(R"({"prompt": "a", "suffix": null, "best_of": 1, "use_beam_search": false, "bad_words": [],
      "response_format": {"type": "text"}, "structured_outputs": null, "logit_bias": null, "stop": null, "n": null})"));
  good(chat_request(R"(, "tools": [], "functions": null, "store": false, "metadata": {"a": "b"}, "modalities": ["text"],
      "tool_choice": "none")"));
}

TEST_F(RequestTest, AnUnknownModelIsNotFoundAndTheNamesAreTold) {
  const ApiError error = bad(completion(R"({"prompt": "a", "model": "gpt"})"));
  EXPECT_EQ(error.status, 404);
  EXPECT_EQ(error.param, "model");
  EXPECT_THAT(error.message, HasSubstr("stories, alias"));
}

TEST_F(RequestTest, EchoAndLogprobs) {
  const GenerationRequest echo = good(completion(R"({"prompt": "a", "echo": true, "logprobs": 0, "max_tokens": 0})"));
  EXPECT_TRUE(echo.prompt_alone);
  EXPECT_TRUE(echo.inputs.at(0).return_prompt);
  EXPECT_EQ(echo.inputs.at(0).options.params.prompt_logprobs, 0U);
  EXPECT_EQ(echo.inputs.at(0).options.params.max_tokens, 1U);
  EXPECT_FALSE(echo.prompt_logprobs);
  const GenerationRequest chat = good(chat_request(R"(, "logprobs": true, "top_logprobs": 5)"));
  EXPECT_EQ(chat.inputs.at(0).options.params.logprobs, 5U);
  EXPECT_EQ(good(chat_request(R"(, "logprobs": true)")).inputs.at(0).options.params.logprobs, 0U);
  EXPECT_FALSE(good(chat_request(R"(, "logprobs": false)")).inputs.at(0).options.params.logprobs);
}

TEST_F(RequestTest, Streams) {
  const GenerationRequest plain = good(completion(R"({"prompt": "a", "stream": true})"));
  EXPECT_TRUE(plain.stream);
  EXPECT_FALSE(plain.include_usage);
  const GenerationRequest counted = good(completion(
      R"({"prompt": "a", "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true}})"));
  EXPECT_TRUE(counted.include_usage);
  EXPECT_TRUE(counted.continuous_usage_stats);
  EXPECT_EQ(bad(completion(R"({"prompt": "a", "stream": true, "stream_options": {"include_usage": 1}})")).param,
            "stream_options");
  EXPECT_EQ(bad(completion(R"({"prompt": "a", "stream": true, "prompt_logprobs": 1})")).param, "prompt_logprobs");
}

TEST_F(RequestTest, RanksAndPriorities) {
  EXPECT_EQ(good(completion(R"({"prompt": "a"})", "1")).inputs.at(0).dp_rank, 1);
  EXPECT_EQ(good(completion(R"({"prompt": "a"})", "one")).inputs.at(0).dp_rank, std::nullopt);
  EXPECT_EQ(bad(completion(R"({"prompt": "a"})", "-1")).param, "X-data-parallel-rank");
  model.by_priority = true;
  EXPECT_EQ(good(completion(R"({"prompt": "a", "priority": -3})")).inputs.at(0).priority, -3);
}

TEST_F(RequestTest, TooManyChoicesTogether) {
  Json body = json(R"({"n": 128})");
  body["prompt"] = Json(std::vector<std::string>(33, "a"));
  EXPECT_EQ(bad(parse_completion(body, model)).param, "n");
  body["prompt"] = Json(std::vector<std::string>(1025, "a"));
  EXPECT_EQ(bad(parse_completion(body, model)).param, "prompt");
}

TEST_F(RequestTest, ChatsAreRendered) {
  EXPECT_EQ(good(chat_request("")).inputs.at(0).prompt, "<user>Hi</user><assistant>");
  EXPECT_FALSE(good(chat_request("")).inputs.at(0).add_special_tokens);
  EXPECT_EQ(good(chat_request(R"(, "add_generation_prompt": false)")).inputs.at(0).prompt, "<user>Hi</user>");
  const auto render = [&](const std::string& body) { return good(parse_chat(json(body), model)).inputs.at(0).prompt; };
  EXPECT_EQ(
      render(
          R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})"),
      "<user>a\nb</user><assistant>");
  EXPECT_EQ(render(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Once"}],
      "continue_final_message": true, "add_generation_prompt": false})"),
            "<user>a</user><assistant>Once");
  EXPECT_EQ(
      render(
          R"({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": "f"}}],
      "tool_choice": "none", "chat_template_kwargs": {"mood": "sad"}})"),
      "[f](sad)<user>a</user><assistant>");
  // The arguments of an earlier call are an object to the template.
  EXPECT_EQ(
      render(R"({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
      "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]})"),
      "<assistant>f:1</assistant><assistant>");
  const ApiError raised = bad(parse_chat(json(R"({"messages": [{"role": "alien", "content": "x"}]})"), model));
  EXPECT_EQ(raised.param, "messages");
  EXPECT_THAT(raised.message, HasSubstr("no such role"));
}

TEST_F(RequestTest, ToolsAreCalledWhereTheServerParsesCalls) {
  const std::string with_tools =
      R"({"messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": "function", "function": {"name": "f"}}])";
  const auto param = [&](const std::string& more) {
    return bad(parse_chat(json(with_tools + more + "}"), model)).param;
  };
  for (const char* const choice : {"", R"(, "tool_choice": "auto")", R"(, "tool_choice": null)"}) {
    EXPECT_EQ(param(choice), "tool_choice") << "no parser";
  }
  model.tool_calls = find_tool_call_format("hermes");
  model.tool_markers_are_special = true;
  const auto read = [&](const std::string& more) {
    return std::get<GenerationRequest>(parse_chat(json(with_tools + more + "}"), model));
  };
  EXPECT_EQ(read("").output.tool_calls, model.tool_calls);
  EXPECT_FALSE(read("").inputs[0].options.skip_special_tokens);
  EXPECT_FALSE(read(R"(, "parallel_tool_calls": false)").output.parallel_tool_calls);
  EXPECT_EQ(read(R"(, "tool_choice": "none")").output.tool_calls, nullptr);
  EXPECT_TRUE(read(R"(, "tool_choice": "none")").inputs[0].options.skip_special_tokens);
  for (const char* const choice :
       {R"(, "tool_choice": "required")", R"(, "tool_choice": {"type": "function"})", R"(, "tool_choice": 5)"}) {
    EXPECT_EQ(param(choice), "tool_choice");
  }
}

TEST_F(RequestTest, ThoughtsOfAMessageHaveBothNames) {
  model.reasoning = ReasoningStyle::deepseek_r1;
  Json body = json(
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "reasoning_content": "so", "content": ""}]})");
  const auto request = std::get<GenerationRequest>(parse_chat(body, model));
  EXPECT_THAT(request.inputs[0].prompt, HasSubstr("<assistant>[so]</assistant>"));
  EXPECT_EQ(request.output.reasoning, ReasoningStart::unless_marked_thoughts);
  body["include_reasoning"] = false;
  EXPECT_FALSE(std::get<GenerationRequest>(parse_chat(body, model)).output.shows_reasoning);
}

}  // namespace
}  // namespace chorus
