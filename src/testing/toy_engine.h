// A toy model behind the executor seam, whose manner is chosen by words in EngineConfig::model, as the engine of tests
// with real processes; and the means to compare runs.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine_core.h"
#include "testing/slowness.h"
#include "testing/toy_model.h"
#include "worker/engine_process.h"
#include "worker/process_main.h"

namespace chorus::testing_fleet {

// Manners: "slow" 1 ms a step, "crawl" 20 ms a step (a model's speed, not a synchronisation), "wrong" refuses its
// configuration, "stuck" never ends a step, "crash" ends while loading, "hang" never ends loading, "fail" fails its
// first step, "poison" is killed by a request whose prompt begins with poison_token, "heavy" 20 ms a row.
constexpr TokenId poison_token = 998;

class ToyExecutor final : public Executor {
 public:
  explicit ToyExecutor(std::string manner) : manner_(std::move(manner)) {}
  ExecutorInfo info() const override {
    return {model_.config().kv_blocks, model_.config().block_size, model_.config().vocab_size};
  }
  Result<void> submit(const StepPlan& plan) override {
    if (manner_ == "fail") return fail(ErrorCode::unavailable, "the toy breaks on purpose");
    if (manner_ == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (manner_ == "crawl") std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (manner_ == "heavy") std::this_thread::sleep_for(std::chrono::milliseconds(20) * plan.rows);
    while (manner_ == "stuck") ::pause();
    if (manner_ == "poison") {
      for (const SequencePlan& sequence : plan.sequences) {
        if (sequence.history[0] == poison_token) ::raise(SIGKILL);
      }
    }
    model_.execute(plan, &result_);
    return {};
  }
  Result<void> collect(StepResult* result) override {
    std::swap(*result, result_);
    return {};
  }

 private:
  std::string manner_;
  StepResult result_;  // of the plan submitted and not collected
  ToyModel model_{{.kv_blocks = 512, .block_size = 16, .vocab_size = 1000, .verify_context = false}};
};

inline Result<std::unique_ptr<Executor>> make_toy(const EngineStart& start, const LoadedWeights& weights) {
  if (weights.arena.size() != 4096 || weights.arena.data()[0] != std::byte{42}) {
    return fail(ErrorCode::internal, "not the weights that were loaded");
  }
  if (start.config.model == "wrong") return fail(ErrorCode::invalid_argument, "the toy does not like max_model_len");
  if (start.config.model == "crash") ::_exit(7);
  while (start.config.model == "hang") ::pause();
  return std::unique_ptr<Executor>(std::make_unique<ToyExecutor>(start.config.model));
}

// As what an engine process is given: no other workers.
inline Result<StartedReplica> start_toy(const EngineStart& start, const LoadedWeights& weights,
                                        Connection* /*connection*/, const ProgressMemory& /*progress*/) {
  StartedReplica replica;
  CHORUS_TRY(replica.executor, make_toy(start, weights));
  return replica;
}

inline Result<LoadedWeights> make_toy_weights(const EngineConfig& /*config*/, const ModelConfig& /*model*/,
                                              const std::vector<int>& /*shards*/, int /*threads*/,
                                              const std::function<bool()>& /*interrupted*/) {
  LoadedWeights weights;
  CHORUS_TRY(weights.arena, WeightArena::create(4096));
  weights.arena.writable_data()[0] = std::byte{42};
  CHORUS_TRY_VOID(weights.arena.seal());
  weights.shard_offsets = {0, 4096};
  return weights;
}

inline EngineConfig toy_engine_config(int replicas, const std::string& manner = "") {
  EngineConfig config;
  config.model = manner;
  config.kv_cache_bytes = 1 << 20;
  config.threads = 1;
  config.cpu_threads_bind = "none";
  config.max_num_seqs = 16;
  config.max_num_batched_tokens = 64;
  config.parallel.data_parallel_size = replicas;
  return config;
}

inline ModelConfig toy_model_config() {
  ModelConfig model;
  model.max_position_embeddings = 256;
  model.vocab_size = 1000;
  model.eos_token_ids = {0};
  return model;
}

// Requests of mixed shapes: one to three choices, some with logprobs. A function of `count` alone.
inline std::vector<Request> mixed_requests(int count) {
  std::mt19937 random(11);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request;
    request.id = {0, static_cast<std::uint64_t>(i) + 1};
    request.prompt.resize(1 + random() % 60);
    for (TokenId& token : request.prompt) token = static_cast<TokenId>(1 + random() % 999);
    request.params.seed = random();
    request.params.n = static_cast<std::uint32_t>(1 + (random() % 4 == 0 ? random() % 3 : 0));
    request.params.max_tokens = static_cast<std::uint32_t>(1 + random() % 80);
    request.params.ignore_eos = random() % 2 == 0;
    if (random() % 3 == 0) request.params.logprobs = 0;
    if (random() % 5 == 0) request.params.prompt_logprobs = 0;
    requests.push_back(std::move(request));
  }
  return requests;
}

inline std::uint32_t choices_of(const std::vector<Request>& requests) {
  std::uint32_t choices = 0;
  for (const Request& request : requests) choices += request.params.n;
  return choices;
}

struct Output {
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs;
  std::vector<PositionLogprobs> prompt_logprobs;
  FinishReason finish = FinishReason::none;
  bool operator==(const Output&) const = default;
};
using Outputs = std::map<std::pair<RequestId, std::uint32_t>, Output>;

// Holds the stream to its promise (positions 0, 1, 2, ... once each, then one finish) and collects it.
class Collector {
 public:
  // What comes under the id `given` is collected under the id `ours`.
  void rename(RequestId given, RequestId ours) { ours_[given] = ours; }
  void take(const TokenEvent& event) {
    const auto renamed = ours_.find(event.request);
    Output& output = outputs_[{renamed == ours_.end() ? event.request : renamed->second, event.choice}];
    EXPECT_EQ(output.finish, FinishReason::none) << "an event after the finish of request " << event.request.number;
    if (event.token) {
      EXPECT_EQ(event.position, output.tokens.size()) << "request " << event.request.number;
      output.tokens.push_back(*event.token);
    }
    if (event.logprobs) output.logprobs.push_back(*event.logprobs);
    output.prompt_logprobs.insert(output.prompt_logprobs.end(), event.prompt_logprobs.begin(),
                                  event.prompt_logprobs.end());
    output.finish = event.finish;
    if (event.finish != FinishReason::none) ++finished_;
    ++events_;
  }
  std::uint32_t finished() const { return finished_; }
  std::size_t events() const { return events_; }
  const Outputs& outputs() const { return outputs_; }

 private:
  std::map<RequestId, RequestId> ours_;
  Outputs outputs_;
  std::uint32_t finished_ = 0;
  std::size_t events_ = 0;
};

// What one engine in this process makes of them, without any fleet.
inline Outputs direct_outputs(const std::vector<Request>& requests) {
  const auto engine = make_engine_core(toy_engine_config(1), toy_model_config(), std::make_unique<ToyExecutor>(""));
  for (const Request& request : requests) engine->add(request);
  Collector collector;
  std::vector<TokenEvent> events;
  while (engine->has_work()) {
    events.clear();
    EXPECT_TRUE(engine->step(0, &events).ok());
    for (const TokenEvent& event : events) collector.take(event);
  }
  return collector.outputs();
}

inline constexpr Nanoseconds test_timeout = slowness * 60'000'000'000;

}  // namespace chorus::testing_fleet
