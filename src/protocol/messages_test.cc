#include "protocol/messages.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace chorus {
namespace {

Request full_request() {
  Request request;
  request.id = {0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF};
  request.prompt = {0, 1, std::numeric_limits<TokenId>::max(), -1};
  request.params.n = 3;
  request.params.temperature = 0.1;
  request.params.top_k = -1;
  request.params.seed = 0x8000000000000001;
  request.params.stop_token_ids = {5, 6};
  request.params.logprobs = 0;
  request.params.logit_bias = {{7, -100.0F}, {8, 0.5F}};
  request.priority = -3;
  request.choices = {{2, {9, 10}}, {0, {}}};
  request.skip_prompt_logprobs = true;
  return request;
}

TokenEvent full_event() {
  TokenEvent event;
  event.request = {3, 12};
  event.choice = 2;
  event.position = 7;
  event.token = 31999;
  event.logprobs = PositionLogprobs{{31999, -0.25F}, {{1, -0.125F}, {2, -std::numeric_limits<float>::infinity()}}};
  event.prompt_logprobs = {{{4, -1.5F}, {}}, {{5, -2.5F}, {{6, -0.5F}}}};
  event.finish = FinishReason::stop;
  event.stop_token = 2;
  event.error = "why";
  return event;
}

EngineStart full_start() {
  EngineStart start;
  start.config.model = "directory";
  start.config.max_num_seqs = 7;
  start.config.scheduling_policy = SchedulingPolicy::priority;
  start.config.parallel.data_parallel_size = 5;
  start.model.architecture = "LlamaForCausalLM";
  start.model.rope.type = RopeType::yarn;
  start.model.rope.attention_factor = 1.25;
  start.model.layer_is_moe = {true, false, true};
  start.model.layer_window = {0, 128};
  start.model.eos_token_ids = {2, 7};
  start.model.eos_token_id = 7;
  start.model.default_top_k = 20;
  start.dp_rank = 4;
  start.epoch = 9;
  start.kv_cache_bytes = std::uint64_t{1} << 40;
  start.worker_cpus = {{3, 1}, {}};
  start.shard_offsets = {0, 64, 640};
  start.isa = Isa::amx_bf16;
  start.dtype = DType::float32;
  return start;
}

TEST(Messages, ReadBackExactly) {
  const auto request = decode_request(encode(full_request()));
  ASSERT_TRUE(request.ok()) << request.error().message;
  EXPECT_EQ(encode(*request), encode(full_request()));
  EXPECT_EQ(request->params, full_request().params);
  EXPECT_EQ(request->choices[0].emitted, (std::vector<TokenId>{9, 10}));
  EXPECT_TRUE(request->skip_prompt_logprobs);

  const auto start = decode_engine_start(encode(full_start()));
  ASSERT_TRUE(start.ok()) << start.error().message;
  EXPECT_EQ(encode(*start), encode(full_start()));
  EXPECT_EQ(start->model.layer_is_moe, full_start().model.layer_is_moe);
  EXPECT_EQ(start->model.rope.attention_factor, 1.25);
  EXPECT_EQ(start->isa, Isa::amx_bf16);

  const auto load =
      decode_load(encode(LoadMessage{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, {13, 14}}, {{0, 11}, {7, 12}}}));
  ASSERT_TRUE(load.ok());
  EXPECT_EQ(load->load.output_tokens, 11U);
  EXPECT_EQ(load->load.steps_by_rows, (std::vector<std::uint64_t>{13, 14}));
  EXPECT_EQ(load->messages_received[1], std::pair(ClientId{7}, std::uint64_t{12}));

  const auto join = decode_join(encode(JoinMessage{3, 1, "node b", {{"block_size", "16"}, {"version", "1"}}}));
  ASSERT_TRUE(join.ok());
  EXPECT_EQ(join->dp_rank, 3);
  EXPECT_EQ(join->node, "node b");
  EXPECT_EQ(join->fingerprint, (Fingerprint{{"block_size", "16"}, {"version", "1"}}));

  const auto abort = decode_abort(encode(AbortMessage{{1, 5}, 6}));
  ASSERT_TRUE(abort.ok());
  EXPECT_EQ(abort->request, (RequestId{1, 5}));
  EXPECT_EQ(abort->choice, 6U);
}

TEST(Messages, EventsAreSplitByBytesAndKeepTheirOrder) {
  std::vector<TokenEvent> events(10, full_event());
  for (std::uint32_t i = 0; i < 10; ++i) events[i].position = i;
  std::vector<std::uint32_t> positions;
  const auto payloads = encode_events(events, 300);
  EXPECT_GT(payloads.size(), 3U);
  for (const std::string& payload : payloads) {
    EXPECT_LE(payload.size(), 300U);
    const auto decoded = decode_events(payload);
    ASSERT_TRUE(decoded.ok());
    for (const TokenEvent& event : *decoded) {
      positions.push_back(event.position);
      EXPECT_EQ(event.logprobs, full_event().logprobs);
      EXPECT_EQ(event.prompt_logprobs, full_event().prompt_logprobs);
      EXPECT_EQ(event.error, "why");
    }
  }
  EXPECT_EQ(positions, (std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_TRUE(encode_events({}, 300).empty());
}

TEST(Messages, AnEventOverTheLimitBecomesItsChoicesEnd) {
  std::vector<TokenEvent> events(3, full_event());
  events[1].prompt_logprobs.resize(1000, {{4, -1.5F}, {}});
  EXPECT_EQ(refuse_oversized(events, 4096), std::vector<std::size_t>{1});
  EXPECT_EQ(events[0].token, full_event().token);
  EXPECT_EQ(events[2].finish, full_event().finish);
  EXPECT_EQ(events[1].request, full_event().request);
  EXPECT_EQ(events[1].choice, full_event().choice);
  EXPECT_EQ(events[1].token, std::nullopt);
  EXPECT_EQ(events[1].finish, FinishReason::error);
  EXPECT_NE(events[1].error.find("at most 4096"), std::string::npos) << events[1].error;
  for (const std::string& payload : encode_events(events, 4096)) EXPECT_LE(payload.size(), 4096U);
}

TEST(Messages, AnUnknownEnumeratorIsRefusedByName) {
  std::string payload = encode(FatalMessage{ErrorCode::internal, "x"});
  payload[0] = 100;
  const auto decoded = decode_fatal(payload);
  ASSERT_FALSE(decoded.ok());
  EXPECT_NE(decoded.error().message.find("FATAL: malformed message"), std::string::npos);
  EXPECT_NE(decoded.error().message.find("an error code is 100"), std::string::npos) << decoded.error().message;
}

// Goal: no mutation of any message crashes a decoder, and what is accepted is what was sent. Seeded.
TEST(Messages, MutatedMessagesNeverCrash) {
  std::mt19937 random(5);
  const std::string request = encode(full_request());
  const std::string start = encode(full_start());
  const TokenEvent event = full_event();
  const std::string events = encode_events({&event, 1}, 1 << 20).front();
  const auto mutated = [&](std::string bytes) {
    for (auto i = 1 + random() % 4; i > 0; --i) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 3 == 0) bytes.resize(random() % (bytes.size() + 1));
    return bytes;
  };
  for (int round = 0; round < 20000; ++round) {
    const std::string a = mutated(request);
    const std::string b = mutated(start);
    const std::string c = mutated(events);
    if (const auto decoded = decode_request(a); decoded.ok()) {
      EXPECT_EQ(encode(*decoded), a);
    }
    if (const auto decoded = decode_engine_start(b); decoded.ok()) {
      EXPECT_EQ(encode(*decoded), b);
    }
    if (const auto decoded = decode_events(c); decoded.ok() && !decoded->empty()) {
      EXPECT_EQ(encode_events(*decoded, 1 << 30).front(), c);
    }
  }
}

}  // namespace
}  // namespace chorus
