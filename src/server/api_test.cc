// The routes over a fleet that answers every request with "one two three", a token a byte.
#include "server/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "server/metrics/metric_text.h"
#include "testing/text_testing.h"

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Keeps what is answered.
class RecordedExchange final : public Exchange {
 public:
  explicit RecordedExchange(HttpRequest request) : request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }
  std::string take_body() override { return std::move(request_.body); }
  void respond(HttpResponse given) override {
    response = std::move(given);
    open_ = false;
  }
  void begin_stream(HttpResponse head) override { response = std::move(head); }
  void write(std::string_view data) override { streamed += data; }
  void end_stream() override { open_ = false; }
  void cut() override { open_ = false; }
  bool is_open() const override { return open_; }
  bool has_room() const override { return room; }
  void on_gone(std::function<void()> callback) override { gone = std::move(callback); }
  void on_room(std::function<void()> callback) override { there_is_room = std::move(callback); }

  // The stream's events; each must be a "data: " line and an empty one.
  std::vector<std::string> events() const {
    std::vector<std::string> found;
    for (std::size_t at = 0; at < streamed.size();) {
      const std::size_t end = streamed.find("\n\n", at);
      EXPECT_EQ(streamed.substr(at, 6), "data: ");
      EXPECT_NE(end, streamed.npos);
      found.push_back(streamed.substr(at + 6, end - at - 6));
      at = end + 2;
    }
    return found;
  }

  std::optional<HttpResponse> response;
  std::string streamed;
  bool room = true;
  std::function<void()> gone, there_is_room;

 private:
  HttpRequest request_;
  bool open_ = true;
};

class ApiTest : public testing::Test {
 protected:
  ApiTest() {
    ModelConfig model = byte_model();
    model.max_position_embeddings = 64;
    engine.emplace(
        fleet, tokenizer, EngineConfig{}, model,
        [](std::span<const TokenId>, const SamplingParams&) { return std::uint64_t{5}; }, limits);
    config.model.names = {"bytes", "alias"};
    config.model.chat = &chat;
    config.model.max_model_len = 64;
    config.version = "1.2.3";
    config.profile = "scalar/float32";
    config.model.defaults.params.max_tokens = 16;
  }
  void start() {
    api.emplace(config,
                ApiHost{[this] {
                          return ReplicaCounts{0, 2, alive, ready};
                        },
                        [this] { ++wakes; },
                        [this](std::function<void()> work) {
                          const std::lock_guard lock(later_mutex);
                          later.push_back(std::move(work));
                        },
                        [this] {
                          return metrics_text(metrics, {"bytes", {}});
                        }},
                *engine, tokenizer, &metrics, metrics.front_end(0));
    application = api->application();
  }
  std::shared_ptr<RecordedExchange> ask(const std::string& method, const std::string& path,
                                        const std::string& body = {},
                                        std::vector<std::pair<std::string, std::string>> fields = {}) {
    if (!api) start();
    HttpRequest request;
    request.method = method;
    request.path = path;
    request.body = body;
    request.fields = std::move(fields);
    request.fields.emplace_back("host", "localhost");
    if (method == "POST") request.fields.emplace_back("content-type", "application/json; charset=utf-8");
    auto exchange = std::make_shared<RecordedExchange>(request);
    if (auto refusal = application.admit(request)) {
      exchange->respond(std::move(*refusal));
    } else {
      application.handle(exchange);
    }
    return exchange;
  }
  void poll() {
    for (int i = 0; i < 100; ++i) {  // the fleet gives a few tokens at a time
      std::vector<TextDelta> deltas;
      ASSERT_TRUE(engine->poll(0, &deltas).ok());
      api->take(&deltas);
    }
  }
  std::shared_ptr<RecordedExchange> post(const std::string& path, const std::string& body) {
    auto exchange = ask("POST", path, body);
    poll();
    return exchange;
  }
  static Json answer(const RecordedExchange& exchange) { return parse_json(exchange.response.value().body).value(); }
  static std::vector<Json> chunks(const RecordedExchange& exchange) {
    std::vector<std::string> events = exchange.events();
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    std::vector<Json> parsed;
    for (const std::string& event : events) parsed.push_back(parse_json(event).value());
    return parsed;
  }

  // Waits for what another thread asks this one to do, and does it.
  void run_later() {
    std::vector<std::function<void()>> work;
    while (work.empty()) {
      std::this_thread::yield();
      const std::lock_guard lock(later_mutex);
      work = std::exchange(later, {});
    }
    for (const auto& one : work) one();
  }

  std::mutex later_mutex;
  std::vector<std::function<void()>> later;
  EchoFleet fleet;
  std::shared_ptr<const Tokenizer> tokenizer = std::make_shared<ByteTokenizer>();
  ChatFormat chat = ChatFormat::load(std::string(CHORUS_TEST_DATA) + "/server/chat").value();
  TextEngineLimits limits;
  std::optional<TextEngine> engine;
  MetricStore metrics = MetricStore::create({1, 1, 64}).value();
  ApiConfig config;
  std::optional<Api> api;
  HttpApplication application;
  int ready = 1, alive = 1, wakes = 0;
};

TEST_F(ApiTest, CompletesWhole) {
  const auto exchange = post("/v1/completions", R"({"model": "alias", "prompt": "ab", "max_tokens": 7, "n": 2})");
  const Json body = answer(*exchange);
  EXPECT_EQ(exchange->response->status, 200);
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "bytes");
  EXPECT_THAT(body["id"].get<std::string>(), testing::StartsWith("cmpl-"));
  ASSERT_EQ(body["choices"].size(), 2U);
  EXPECT_EQ(body["choices"][1].dump(),
            R"({"index":1,"text":"one two","logprobs":null,"finish_reason":"length","stop_reason":null})");
  EXPECT_EQ(body["usage"].dump(), R"({"prompt_tokens":2,"total_tokens":16,"completion_tokens":14})");
  EXPECT_EQ(api->generations(), 0U);
}

TEST_F(ApiTest, SeveralPromptsCountTheirChoicesOn) {
  const Json body =
      answer(*post("/v1/completions", R"({"prompt": [[97], [98, 99]], "n": 2, "max_tokens": 3, "echo": true,
      "stop": "e", "return_token_ids": true})"));
  ASSERT_EQ(body["choices"].size(), 4U);
  EXPECT_EQ(body["choices"][0]["text"], "aon");
  EXPECT_EQ(body["choices"][3]["text"], "bcon");
  EXPECT_EQ(body["choices"][3]["index"], 3);
  EXPECT_EQ(body["choices"][3]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][3]["stop_reason"], "e");
  EXPECT_EQ(body["choices"][3]["prompt_token_ids"].dump(), "[98,99]");
  EXPECT_EQ(body["choices"][3]["token_ids"].dump(), "[111,110,101]");
}

TEST_F(ApiTest, ChatsWhole) {
  const Json body =
      answer(*post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3})"));
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["choices"][0].dump(),
            R"({"index":0,"message":{"role":"assistant","content":"one","refusal":null},"logprobs":null,)"
            R"("finish_reason":"length","stop_reason":null})");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 26);
}

TEST_F(ApiTest, StreamsACompletion) {
  const auto exchange =
      post("/v1/completions", R"({"prompt": "a", "max_tokens": 4, "n": 2, "stream": true, "echo": true,
      "stream_options": {"include_usage": true}})");
  EXPECT_EQ(exchange->response->content_type, "text/event-stream; charset=utf-8");
  std::vector<std::string> texts(2);
  std::vector<Json> all = chunks(*exchange);
  EXPECT_EQ(all.back()["choices"].size(), 0U);
  EXPECT_EQ(all.back()["usage"]["completion_tokens"], 8);
  all.pop_back();
  for (const Json& chunk : all) {
    EXPECT_FALSE(chunk.contains("usage"));
    EXPECT_EQ(chunk["object"], "text_completion");
    texts[chunk["choices"][0]["index"].get<std::size_t>()] += chunk["choices"][0]["text"].get<std::string>();
  }
  EXPECT_THAT(texts, ElementsAre("aone ", "aone "));
  EXPECT_EQ(all.back()["choices"][0]["finish_reason"], "length");
  EXPECT_FALSE(exchange->is_open());
}

TEST_F(ApiTest, StreamsAChat) {
  const auto exchange =
      post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3,
      "stream": true, "stream_options": {"continuous_usage_stats": true}})");
  const std::vector<Json> all = chunks(*exchange);
  EXPECT_EQ(all.front()["object"], "chat.completion.chunk");
  EXPECT_EQ(all.front()["choices"][0]["delta"].dump(), R"({"role":"assistant","content":""})");
  std::string text;
  for (std::size_t i = 1; i < all.size(); ++i) {
    text += all[i]["choices"][0]["delta"]["content"].get<std::string>();
    EXPECT_TRUE(all[i].contains("usage"));
  }
  EXPECT_EQ(text, "one");
  EXPECT_EQ(all.back()["choices"][0]["finish_reason"], "length");
}

TEST_F(ApiTest, ASlowReaderGetsFewerAndLongerChunks) {
  const auto exchange = ask("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 13, "stream": true})");
  exchange->room = false;
  poll();
  EXPECT_EQ(exchange->streamed, "");
  EXPECT_EQ(api->generations(), 1U);
  exchange->room = true;
  exchange->there_is_room();
  const std::vector<Json> all = chunks(*exchange);
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0]["choices"][0]["text"], "one two thre");  // the last token is its end
  EXPECT_EQ(api->generations(), 0U);
}

TEST_F(ApiTest, AClientThatGoesEndsItsRequests) {
  fleet.silent = true;
  const auto exchange = ask("POST", "/v1/completions", R"({"prompt": ["a", "b"], "stream": true})");
  poll();
  EXPECT_EQ(engine->requests(), 2U);
  const int before = wakes;
  exchange->gone();
  EXPECT_EQ(engine->requests(), 0U);
  EXPECT_EQ(api->generations(), 0U);
  EXPECT_GT(wakes, before);
}

// OpenAI's client loses a call that begins in the chunk that ends its choice.
TEST_F(ApiTest, TheEndOfCallsIsAChunkOfItsOwn) {
  config.model.tool_calls = find_tool_call_format("mistral");
  fleet.answer = "[TOOL_CALLS]f{}[TOOL_CALLS]g{}.";
  const auto exchange = ask("POST", "/v1/chat/completions",
                            R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, "stream": true,
      "tools": [{"type": "function", "function": {"name": "f"}}]})");
  exchange->room = false;
  poll();
  exchange->room = true;
  exchange->there_is_room();
  const std::vector<Json> all = chunks(*exchange);
  ASSERT_EQ(all.size(), 3U);
  const Json& calls = all[1]["choices"][0];
  EXPECT_EQ(calls["delta"]["tool_calls"].size(), 2U);
  EXPECT_TRUE(calls["finish_reason"].is_null());
  EXPECT_EQ(all[2]["choices"][0]["delta"].dump(), R"({"content":""})");
  EXPECT_EQ(all[2]["choices"][0]["finish_reason"], "tool_calls");
}

TEST_F(ApiTest, AbortedRequestsEndWhereTheyAre) {
  const auto once = [&] {
    std::vector<TextDelta> deltas;
    ASSERT_TRUE(engine->poll(0, &deltas).ok());
    api->take(&deltas);
  };
  const auto whole =
      ask("POST", "/v1/completions", R"({"prompt": "a", "n": 2, "echo": true})", {{"x-request-id", "one"}});
  once();
  const auto answered = ask("POST", "/abort_requests", R"({"request_ids": ["one", "nobody"]})");
  EXPECT_EQ(answered->response->body, R"({"aborted":1})");
  EXPECT_EQ(answer(*whole)["choices"][0]["text"], "aone");
  EXPECT_EQ(answer(*whole)["choices"][0]["finish_reason"], "abort");
  EXPECT_EQ(answer(*whole)["choices"][1]["finish_reason"], "abort");
  EXPECT_EQ(engine->requests(), 0U);
  fleet.pending.clear();
  const auto streamed =
      ask("POST", "/v1/chat/completions",
          R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true, "request_id": "two"})");
  once();
  streamed->room = false;
  ask("POST", "/abort_requests", R"({"request_ids": ["chatcmpl-two"]})");
  EXPECT_EQ(api->generations(), 1U) << "its reader has not taken all";
  streamed->room = true;
  streamed->there_is_room();
  EXPECT_EQ(chunks(*streamed).back()["choices"][0]["finish_reason"], "abort");
  EXPECT_EQ(api->generations(), 0U);
  EXPECT_EQ(ask("POST", "/abort_requests", R"({"request_ids": [5]})")->response->status, 400);
}

TEST_F(ApiTest, AResetIsAnsweredWhenTheReplicasHaveDoneIt) {
  const auto turn = [&] {
    std::vector<TextDelta> deltas;
    api->take(&deltas);
  };
  const auto first = ask("POST", "/reset_prefix_cache"), second = ask("POST", "/reset_prefix_cache");
  EXPECT_EQ(fleet.resets, 2U);
  turn();
  EXPECT_FALSE(first->response);
  fleet.resets_done = 1;
  turn();
  ASSERT_TRUE(first->response);
  EXPECT_EQ(first->response->status, 200);
  EXPECT_EQ(first->response->body, "");
  EXPECT_FALSE(second->response);
  const auto impatient = ask("POST", "/reset_prefix_cache");
  const std::weak_ptr<RecordedExchange> kept = impatient;
  impatient->gone();
  EXPECT_EQ(kept.use_count(), 1) << "of a client that has gone nothing is kept";
  api->fail("no replica could be kept alive");
  EXPECT_EQ(second->response->status, 500);
  EXPECT_EQ(ask("GET", "/reset_prefix_cache")->response->status, 405);
}

TEST_F(ApiTest, ErrorsInOpenAisForm) {
  const std::string long_prompt(64, 'x');
  const struct {
    const char* path;
    std::string body;
    int status;
    const char* words;
  } cases[] = {
      {"/v1/completions", "{", 400, "JSON"},
      {"/v1/completions", "[]", 400, "object"},
      {"/v1/completions", R"({"prompt": "a", "temperature": NaN})", 400, "JSON"},
      {"/v1/completions", R"({"prompt": "a", "temperature": 1e999})", 400, "beyond"},
      {"/v1/completions", R"({"prompt": "\ud800"})", 400, "string"},
      {"/v1/completions", "{\"prompt\": \"\xff\"}", 400, "UTF-8"},
      {"/v1/completions", R"({"prompt": "a", "prompt": "b"})", 400, "prompt"},
      {"/v1/completions", std::string(65, '[') + std::string(65, ']'), 400, "64"},
      {"/v1/completions", R"({"prompt": "a", "model": "other"})", 404, "bytes, alias"},
      {"/v1/completions", R"({"prompt": ")" + long_prompt + "\"}", 400, "64 tokens, and max_model_len 64"},
      {"/v1/completions", R"({"prompt": ""})", 400, "empty"},
      {"/v1/completions", R"({"prompt": [300]})", 400, "vocabulary"},
      {"/v1/completions", R"({"prompt": "a", "suffix": "b"})", 400, "suffix"},
      {"/v1/completions", R"({"prompt": "a", "min_tokens": 5, "max_tokens": 4})", 400, "min_tokens"},
      {"/tokenize", R"({"prompt": 1})", 400, "prompt"},
      {"/detokenize", R"({"tokens": "a"})", 400, "tokens"},
      {"/nowhere", "{}", 404, "/nowhere"},
      {"/v1/models", "{}", 405, "GET"},
  };
  for (const auto& [path, body, status, words] : cases) {
    const auto exchange = post(path, body);
    ASSERT_TRUE(exchange->response) << body;
    EXPECT_EQ(exchange->response->status, status) << body << exchange->response->body;
    const Json error = answer(*exchange)["error"];
    EXPECT_EQ(error["code"], status);
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(words)) << body;
    EXPECT_TRUE(error.contains("param") && error["type"].get<std::string>().ends_with("Error")) << error.dump();
    EXPECT_EQ(api->generations(), 0U) << body;
  }
}

TEST_F(ApiTest, TheBodyMustBeJsonByItsType) {
  start();
  HttpRequest request;
  request.method = "POST";
  request.path = "/v1/completions";
  request.fields = {{"host", "localhost"}, {"content-type", "text/plain"}};
  EXPECT_EQ(application.admit(request)->status, 415);
  request.fields = {{"host", "localhost"}, {"content-type", "application/json"}, {"content-encoding", "gzip"}};
  EXPECT_EQ(application.admit(request)->status, 415);
}

TEST_F(ApiTest, AnErrorOfOnePromptEndsAll) {
  const auto exchange = post("/v1/completions", R"({"prompt": ["a", "", "b"], "max_tokens": 2})");
  EXPECT_EQ(exchange->response->status, 400);
  EXPECT_EQ(engine->requests(), 0U);
  EXPECT_EQ(api->generations(), 0U);
}

TEST_F(ApiTest, WithoutRoomItSaysWhenToComeBack) {
  limits.requests_max = 1;
  ModelConfig model = byte_model();
  engine.emplace(
      fleet, tokenizer, EngineConfig{}, model,
      [](std::span<const TokenId>, const SamplingParams&) { return std::uint64_t{5}; }, limits);
  const auto exchange = post("/v1/completions", R"({"prompt": ["a", "b"]})");
  EXPECT_EQ(exchange->response->status, 503);
  EXPECT_THAT(exchange->response->fields, testing::Contains(testing::Pair("retry-after", "1")));
  EXPECT_EQ(engine->requests(), 0U);
}

TEST_F(ApiTest, TheEnginesEndEndsEveryAnswer) {
  fleet.silent = true;
  const auto whole = ask("POST", "/v1/completions", R"({"prompt": "a"})");
  api->fail("all replicas are dead");
  EXPECT_EQ(whole->response->status, 500);
  EXPECT_EQ(api->generations(), 0U);
}

TEST_F(ApiTest, KeysGuardAllButHealth) {
  ASSERT_TRUE(config.access.keys.add("secret").ok());
  for (const char* const path : {"/v1/models", "/version", "/load", "/ready", "/nowhere"}) {
    EXPECT_EQ(ask("GET", path)->response->status, 401) << path;
  }
  EXPECT_EQ(ask("POST", "/tokenize", "{}")->response->status, 401);
  EXPECT_EQ(ask("GET", "/health")->response->status, 200);
  EXPECT_EQ(ask("GET", "/ping")->response->status, 200);
  EXPECT_EQ(ask("GET", "/v1/models", {}, {{"authorization", "Bearer secret"}})->response->status, 200);
}

TEST_F(ApiTest, TellsItsState) {
  EXPECT_EQ(ask("GET", "/health")->response->status, 200);
  EXPECT_EQ(answer(*ask("GET", "/ready")).dump(), R"({"ready_replicas":1})");
  ready = 0;
  EXPECT_EQ(ask("GET", "/health")->response->status, 200) << "a paused server is healthy";
  EXPECT_EQ(ask("GET", "/ready")->response->status, 503);
  alive = 0;
  EXPECT_EQ(ask("GET", "/health")->response->status, 503);
  ready = alive = 1;
  const auto nowhere = ask("POST", "/v1/completions", R"({"prompt": "a"})", {{"x-data-parallel-rank", "2"}});
  EXPECT_EQ(nowhere->response->status, 400);
  EXPECT_THAT(nowhere->response->body, testing::HasSubstr("there is no data parallel rank 2: there are 2"));
  EXPECT_EQ(answer(*ask("GET", "/version"))["version"], "1.2.3");
  fleet.silent = true;
  ask("POST", "/v1/completions", R"({"prompt": "a"})");
  EXPECT_EQ(answer(*ask("GET", "/load"))["server_load"], 1);
  api->drain();
  EXPECT_EQ(ask("GET", "/ready")->response->status, 503);
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"prompt": "a"})")->response->status, 503);
  EXPECT_EQ(api->generations(), 1U);
}

TEST_F(ApiTest, Models) {
  const Json list = answer(*ask("GET", "/v1/models"));
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2U);
  EXPECT_EQ(list["data"][1]["id"], "alias");
  EXPECT_EQ(list["data"][1]["root"], "bytes");
  EXPECT_EQ(list["data"][0]["max_model_len"], 64);
  EXPECT_EQ(answer(*ask("GET", "/v1/models/alias"))["id"], "alias");
  EXPECT_EQ(ask("GET", "/v1/models/other")->response->status, 404);
}

TEST_F(ApiTest, TokensAndBack) {
  EXPECT_EQ(answer(*ask("POST", "/tokenize", R"({"prompt": "ab", "return_token_strs": true})")).dump(),
            R"({"count":2,"max_model_len":64,"tokens":[97,98],"token_strs":["a","b"]})");
  const Json chat = answer(*ask("POST", "/tokenize", R"({"messages": [{"role": "user", "content": "Hi"}]})"));
  EXPECT_EQ(chat["count"], 26);
  EXPECT_EQ(answer(*ask("POST", "/detokenize", R"({"tokens": [97, 98]})")).dump(), R"({"prompt":"ab"})");
  // A long text on another thread.
  const auto slow = ask("POST", "/tokenize", R"({"prompt": ")" + std::string(10'000, 'x') + "\"}");
  EXPECT_FALSE(slow->response);
  run_later();
  EXPECT_EQ(answer(*slow)["count"], 10'000);
}

TEST_F(ApiTest, AClientsRequestIdIsTheAnswers) {
  const auto exchange = ask("POST", "/v1/completions", R"({"prompt": "a"})", {{"x-request-id", "mine-1"}});
  poll();
  EXPECT_EQ(answer(*exchange)["id"], "cmpl-mine-1");
  EXPECT_THAT(exchange->response->fields, testing::Contains(testing::Pair("x-request-id", "mine-1")));
  const auto strange = ask("POST", "/v1/completions", R"({"prompt": "a"})", {{"x-request-id", "two words"}});
  poll();
  EXPECT_EQ(answer(*strange)["id"].get<std::string>().size(), 5U + 32);
}

TEST_F(ApiTest, CountsWhatItAnswers) {
  post("/v1/completions",
       R"({"prompt": "abc", "max_tokens": 7, "n": 2, "user": "me", "stop": null, "colour": "red", "sise": 3})");
  ask("GET", "/health");
  const auto exchange = ask("GET", "/metrics");
  EXPECT_EQ(exchange->response->content_type, "text/plain; version=0.0.4; charset=utf-8");
  const std::string& text = exchange->response->body;
  EXPECT_THAT(text, HasSubstr("\nvllm:prompt_tokens_total{engine=\"0\",model_name=\"bytes\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("\nvllm:generation_tokens_total{engine=\"0\",model_name=\"bytes\"} 14\n"));
  EXPECT_THAT(text, HasSubstr("finished_reason=\"length\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("\nchorus:unknown_fields_total{model_name=\"bytes\"} 2\n"));
}

TEST_F(ApiTest, CountsAClientThatGoesAsAborted) {
  start();
  const auto exchange = ask("POST", "/v1/completions", R"({"prompt": "abc", "max_tokens": 7})");
  std::vector<TextDelta> deltas;
  ASSERT_TRUE(engine->poll(0, &deltas).ok());
  api->take(&deltas);
  exchange->gone();
  EXPECT_THAT(ask("GET", "/metrics")->response->body, HasSubstr("finished_reason=\"abort\"} 1\n"));
}

TEST_F(ApiTest, RefusesMoreThanMayWait) {
  config.admission.queued_requests_max = 2;
  fleet.silent = true;
  start();
  const auto first = ask("POST", "/v1/completions", R"({"prompt": ["a", "b"]})");
  const auto refused = ask("POST", "/v1/completions", R"({"prompt": "c"})");
  ASSERT_TRUE(refused->response);
  EXPECT_EQ(refused->response->status, 429);
  EXPECT_THAT(refused->response->fields, ElementsAre(std::pair<std::string, std::string>("retry-after", "1")));
  EXPECT_EQ(answer(*refused)["error"]["message"], "2 requests wait, and --max-num-queued-reqs is 2: try again later");
  first->gone();  // and so its two wait no longer
  fleet.silent = false;
  EXPECT_EQ(post("/v1/completions", R"({"prompt": "c"})")->response->status, 200);
  EXPECT_EQ(post("/v1/completions", R"({"prompt": "c"})")->response->status, 200);
  EXPECT_THAT(ask("GET", "/metrics")->response->body, HasSubstr("reason=\"max_num_queued_reqs\"} 1\n"));
}

TEST_F(ApiTest, RefusesMoreTokensThanMayWait) {
  config.admission.queued_tokens_max = 5;
  fleet.silent = true;
  start();
  ask("POST", "/v1/completions", R"({"prompt": [1, 2, 3, 4]})");
  EXPECT_FALSE(ask("POST", "/v1/completions", R"({"prompt": "abcde"})")->response);  // about 2
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"prompt": "a"})")->response->status, 429);
}

TEST_F(ApiTest, MetricsNeedTheKeyUnlessTold) {
  ASSERT_TRUE(config.access.keys.add("secret").ok());
  EXPECT_EQ(ask("GET", "/metrics")->response->status, 401);
  config.open_metrics = true;
  start();
  EXPECT_EQ(ask("GET", "/metrics")->response->status, 200);
}

// The template is rendered on another thread, and what is wrong with it comes back.
TEST_F(ApiTest, LongBodiesAreReadBesideTheServersThread) {
  const std::string long_text(9'000, 'x');
  const auto chat =
      ask("POST", "/v1/chat/completions", R"({"messages": [{"role": "user", "content": ")" + long_text + R"("}]})");
  EXPECT_FALSE(chat->response);
  EXPECT_EQ(api->generations(), 0U);
  run_later();
  while (api->generations() > 0) poll();
  EXPECT_EQ(chat->response->status, 400);
  EXPECT_THAT(answer(*chat)["error"]["message"].get<std::string>(), HasSubstr("max_model_len 64"));
  const auto cut = ask("POST", "/v1/chat/completions",
                       R"({"truncate_prompt_tokens": 9, "max_tokens": 3, "messages": [{"role": "user", "content": ")" +
                           long_text + R"("}]})");
  run_later();
  while (api->generations() > 0) poll();
  EXPECT_EQ(answer(*cut)["choices"][0]["message"]["content"], "one");
  EXPECT_EQ(answer(*cut)["usage"]["prompt_tokens"], 9);
  for (const std::string& wrong :
       {long_text, "[" + std::string(9'000, ' ') + "]", R"({"n": 0, "prompt": ")" + long_text + "\"}"}) {
    const auto refused = ask("POST", "/v1/completions", wrong);
    run_later();
    EXPECT_EQ(refused->response->status, 400);
  }
  // A client that has gone meanwhile asks for nothing.
  const auto gone = ask("POST", "/v1/completions", R"({"prompt": ")" + long_text + "\"}");
  gone->cut();
  run_later();
  EXPECT_EQ(api->generations(), 0U);
}

TEST_F(ApiTest, BoundsTheBodiesThatWaitToBeRead) {
  config.bytes_beside_max = 10'000;
  const auto first = ask("POST", "/tokenize", R"({"prompt": ")" + std::string(9'000, 'x') + "\"}");
  const auto second = ask("POST", "/tokenize", R"({"prompt": ")" + std::string(9'000, 'x') + "\"}");
  EXPECT_EQ(second->response->status, 503);
  EXPECT_THAT(second->response->fields, testing::Contains(testing::Pair("retry-after", "1")));
  run_later();
  EXPECT_EQ(first->response->status, 200);
}

TEST_F(ApiTest, TakesAChatApart) {
  config.model.tool_calls = find_tool_call_format("hermes");
  config.model.reasoning = ReasoningStyle::deepseek_r1;
  const std::string body = R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3)";
  const Json whole = answer(*post("/v1/chat/completions", body + "}"));
  EXPECT_EQ(whole["choices"][0]["message"].dump(),
            R"({"role":"assistant","content":null,"refusal":null,"reasoning":"one"})");
  EXPECT_EQ(whole["usage"]["completion_tokens_details"].dump(), R"({"reasoning_tokens":3})");
  const auto streamed = post("/v1/chat/completions", body + R"(, "stream": true})");
  EXPECT_EQ(chunks(*streamed)[1]["choices"][0]["delta"].dump(), R"({"reasoning":"one"})");
  EXPECT_EQ(chunks(*streamed).back()["choices"][0]["finish_reason"], "length");
}

}  // namespace
}  // namespace chorus
