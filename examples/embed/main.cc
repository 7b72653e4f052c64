// The engine inside your own program: example_embed MODEL
//
// Loads the weights, looks at some of them by name, generates greedily in this process, and then once more with a fleet
// of two engine processes and an assignment of prompts to ranks of our own. Both give the same tokens; exit status 1 if
// they do not.
#include <cstdio>
#include <map>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "config/node.h"
#include "engine/engine_core.h"
#include "exec/model_runner.h"
#include "exec/replica_executor.h"
#include "launch/launch_fleet.h"
#include "models/registry.h"
#include "worker/process_main.h"

namespace {

using namespace chorus;

constexpr int poll_timeout_ms = 1'000;

using Tokens = std::map<RequestId, std::vector<TokenId>>;  // what was generated for each request

EngineConfig configuration(const char* directory, int replicas) {
  EngineConfig config;
  config.model = directory;
  config.max_model_len = 128;
  config.kv_cache_bytes = 16U << 20;
  config.threads = 1;
  config.parallel.data_parallel_size = replicas;
  return config;
}

// Prompts are token ids here: text is the business of frontend/text_engine.h.
std::vector<Request> requests(const ModelConfig& model) {
  const TokenId begin = model.bos_token_ids.empty() ? 0 : model.bos_token_ids.front();
  std::vector<Request> all(6);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].id.number = i;
    all[i].prompt = {begin, model.vocab_size / 2 + 31 * static_cast<TokenId>(i) % (model.vocab_size / 2)};
    all[i].params.temperature = 0;  // greedy
    all[i].params.max_tokens = 12;
  }
  return all;
}

// Takes a token; true at the end of its request.
Result<bool> take(const TokenEvent& event, Tokens* tokens) {
  if (event.finish == FinishReason::error)
    return fail(ErrorCode::internal, "request {}: {}", event.request, event.error);
  if (event.token) (*tokens)[event.request].push_back(*event.token);
  return event.finish != FinishReason::none;
}

// A model runner is one worker: its weights by name, and the groups it computes with (all of one rank here).
Result<void> look_inside(const EngineConfig& config, const ModelConfig& model, const LoadedWeights& weights) {
  ModelRunner::Options options;
  options.isa = weights.isa;
  options.dtype = weights.dtype;
  options.max_model_len = config.max_model_len;
  options.kv_cache_bytes = config.kv_cache_bytes;
  CHORUS_TRY(const auto runner,
             ModelRunner::create(model, options, config.parallel, 0, {weights.shard(0), weights.shard_bytes(0)},
                                 nullptr, WorkerGroups{}));
  const WorkerGroups& groups = runner->groups();
  std::printf("groups: replica of %d, tensor %d, pipeline %d, context %d\n", groups.replica.size(), groups.tp.size(),
              groups.pp.size(), groups.cp.size());
  const std::vector<NamedParameter> parameters = runner->parameters().named_parameters();
  std::printf("%zu named parameters, among them\n", parameters.size());
  for (std::size_t i = 0; i < parameters.size() && i < 5; ++i) {
    const NamedParameter& parameter = parameters[i];
    std::vector<float> row(static_cast<std::size_t>(parameter.column_count));
    runner->parameters().read_row(parameter, 0, row.data());
    std::printf("  %-48s rows %lld:%lld, columns %lld:%lld, first element %g\n", parameter.name.c_str(),
                static_cast<long long>(parameter.first_row),
                static_cast<long long>(parameter.first_row) + static_cast<long long>(parameter.row_count),
                static_cast<long long>(parameter.first_column),
                static_cast<long long>(parameter.first_column) + static_cast<long long>(parameter.column_count),
                static_cast<double>(row[0]));
  }
  return {};
}

// One replica of one worker, in this thread of this process.
Result<Tokens> generate_here(const EngineConfig& config, const ModelConfig& model, const LoadedWeights& weights) {
  WorkerSetup setup;
  setup.config = config;
  setup.model = model;
  setup.kv_cache_bytes = config.kv_cache_bytes;
  setup.threads = config.threads;
  CHORUS_TRY(auto executor, make_replica_executor(setup, weights));
  const auto engine = make_engine_core(config, model, std::move(executor));
  for (Request& request : requests(model)) engine->add(std::move(request));
  Tokens tokens;
  std::vector<TokenEvent> events;
  while (engine->has_work()) {
    events.clear();
    CHORUS_TRY_VOID(engine->step(monotonic_now(), &events));
    for (const TokenEvent& event : events) CHORUS_TRY_VOID(take(event, &tokens));
  }
  return tokens;
}

// Two engine processes; prompt i goes to rank i mod 2. Without a rank the load balancer would choose.
Result<Tokens> generate_on_fleet(const EngineConfig& config, const ModelConfig& model) {
  CHORUS_TRY(const auto fleet, launch_fleet(config, model));
  std::map<RequestId, RequestId> submitted;  // the fleet's ids, and ours
  for (Request& request : requests(model)) {
    const RequestId ours = request.id;
    CHORUS_TRY(const RequestId id, fleet->submit(std::move(request), static_cast<int>(ours.number % 2)));
    submitted[id] = ours;
  }
  std::size_t unfinished = submitted.size();
  Tokens tokens;
  std::vector<FleetEvent> events;
  while (unfinished > 0) {
    events.clear();
    CHORUS_TRY_VOID(fleet->poll(poll_timeout_ms, &events));
    for (FleetEvent& from : events) {
      from.event.request = submitted.at(from.event.request);
      CHORUS_TRY(const bool ended, take(from.event, &tokens));
      if (!ended) continue;
      --unfinished;
      std::printf("request %llu ended on rank %d\n", static_cast<unsigned long long>(from.event.request.number),
                  from.dp_rank);
    }
  }
  return tokens;
}

Result<int> run(const char* directory) {
  CHORUS_TRY(const ModelConfig model, read_model_config(directory));
  const EngineConfig alone = configuration(directory, 1), two = configuration(directory, 2);
  for (const EngineConfig* config : {&alone, &two}) {
    CHORUS_TRY_VOID(validate(*config));
    CHORUS_TRY_VOID(validate(*config, model));
  }
  CHORUS_TRY(const LoadedWeights weights,
             load_weights(alone, model, local_weight_shards(alone.parallel), detect_node().cores()));
  CHORUS_TRY_VOID(look_inside(alone, model, weights));
  CHORUS_TRY(const Tokens here, generate_here(alone, model, weights));
  CHORUS_TRY(const Tokens on_fleet, generate_on_fleet(two, model));
  CHECK(here.size() == requests(model).size(), "{} requests gave tokens", here.size());
  for (const Request& request : requests(model)) {
    std::printf("request %llu:", static_cast<unsigned long long>(request.id.number));
    for (const TokenId token : request.prompt) std::printf(" %d", token);
    std::printf(" ->");
    for (const TokenId token : here.at(request.id)) std::printf(" %d", token);
    std::printf("\n");
  }
  const bool same = here == on_fleet;
  std::printf("in this process and on the fleet: %s\n", same ? "the same tokens" : "DIFFERENT tokens");
  return same ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  // The fleet starts this same program for its engines: ask before anything else.
  if (is_engine_process(argc, argv)) return engine_process_main(engine_socket_fd);
  if (is_worker_process(argc, argv)) return worker_process_main(engine_socket_fd);
  if (argc != 2) {
    std::fprintf(stderr, "usage: example_embed MODEL (a Hugging Face model directory)\n");
    return 2;
  }
  const auto status = run(argv[1]);
  if (!status.ok()) std::fprintf(stderr, "example_embed: %s\n", status.error().message.c_str());
  return status.ok() ? *status : 1;
}
