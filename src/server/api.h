// The routes of a server: what each of them answers, and who may ask. Stands between HTTP (server/http/) and a text
// engine, and decides nothing about either.
//
// On the server's one thread; long bodies are read, their chats rendered and their texts made into tokens on others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "frontend/chat_format.h"
#include "frontend/encoder_pool.h"
#include "frontend/text_engine.h"
#include "server/access.h"
#include "server/admission.h"
#include "server/generation_job.h"
#include "server/http/exchange.h"
#include "server/metrics/request_meter.h"
#include "server/openai/generation_request.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

struct ApiConfig {
  ServedModel model;
  AccessRules access;
  std::string version;  // of the program
  std::string profile;  // of the numerics
  int json_depth_max = 64;
  std::size_t body_bytes_max = std::size_t{4} << 20;
  bool open_metrics = false;           // they need no key
  bool prompt_tokens_details = false;  // in `usage`
  AdmissionLimits admission;
  std::size_t bytes_beside_max = std::size_t{256} << 20;  // of bodies that wait to be read beside the server's thread
};

struct ReplicaCounts {
  int first_rank = 0, end_rank = 0;  // a request may name one from the first to before the end
  int alive = 0;
  int ready = 0;  // of those that live: they get requests
};

// What the API asks of what runs it.
struct ApiHost {
  std::function<ReplicaCounts()> replicas;
  std::function<void()> wake;                             // the text engine is to be polled soon
  std::function<void(std::function<void()> work)> later;  // on the server's thread; any thread calls it
  std::function<std::string()> metrics_text;
};

class Api {
 public:
  // `engine` outlives this, and so does `metrics`, of which this front end's slot is `slot`; nullptr: nobody counts.
  Api(ApiConfig config, ApiHost host, TextEngine& engine, std::shared_ptr<const Tokenizer> tokenizer,
      const MetricStore* metrics = nullptr, MetricSlot slot = {});

  // Of an HttpServer that this outlives.
  HttpApplication application();
  // What the engine has said; empties `deltas`.
  void take(std::vector<TextDelta>* deltas);
  // From now on not ready, and nothing new is generated.
  void drain() { draining_ = true; }
  // "GET /health": of each route.
  static std::vector<std::string> route_names();
  std::size_t generations() const { return jobs_.size(); }  // not wholly answered
  // The engine is no more: each generation ends with this error.
  void fail(const std::string& message);

 private:
  using Handler = void (Api::*)(const std::shared_ptr<Exchange>& exchange);
  struct Route {
    const char* method;
    const char* path;
    bool open;      // needs no API key
    bool has_json;  // in its body
    Handler handler;
  };
  static std::span<const Route> routes();
  static const Route* find_route(const HttpRequest& request);
  std::optional<HttpResponse> admit(const HttpRequest& head) const;
  void handle(const std::shared_ptr<Exchange>& exchange);

  void models(const std::shared_ptr<Exchange>& exchange);
  void page(const std::shared_ptr<Exchange>& exchange);
  void completions(const std::shared_ptr<Exchange>& exchange);
  void chat_completions(const std::shared_ptr<Exchange>& exchange);
  void tokenize(const std::shared_ptr<Exchange>& exchange);
  void detokenize(const std::shared_ptr<Exchange>& exchange);
  void abort_requests(const std::shared_ptr<Exchange>& exchange);
  void reset_prefix_cache(const std::shared_ptr<Exchange>& exchange);
  void answer_resets();
  void health(const std::shared_ptr<Exchange>& exchange);
  void ready(const std::shared_ptr<Exchange>& exchange);
  void version(const std::shared_ptr<Exchange>& exchange);
  void load(const std::shared_ptr<Exchange>& exchange);
  void metrics(const std::shared_ptr<Exchange>& exchange);

  bool refuses_more(Exchange& exchange) const;
  void count_answer(const HttpRequest& request, int status, Nanoseconds duration) const;
  void openapi(const std::shared_ptr<Exchange>& exchange);

  // On the server's thread, when a body has been read.
  using Continuation = std::function<void()>;
  // Touches nothing of this that changes: a long body is read beside the server's thread.
  using BodyReader = std::function<Continuation(const std::shared_ptr<Exchange>& exchange, const Json& body)>;
  using GenerationParser = Parsed<GenerationRequest> (*)(const Json& body, const ServedModel& model,
                                                         std::optional<std::string_view> data_parallel_rank);
  void read_body(const std::shared_ptr<Exchange>& exchange, BodyReader read);
  Continuation read_json(const std::shared_ptr<Exchange>& exchange, const std::string& text,
                         const BodyReader& read) const;
  void read_generation(const std::shared_ptr<Exchange>& exchange, GenerationParser parse);
  HttpResponse tokenized(const Json& body) const;
  HttpResponse detokenized(const Json& body) const;
  void generate(const std::shared_ptr<Exchange>& exchange, Parsed<GenerationRequest> parsed);
  void add_prompts(const std::shared_ptr<GenerationJob>& job, Exchange& exchange, std::vector<GenerationInput> inputs);
  std::uint64_t end_early(const std::vector<std::string>& ids);
  void abort(const std::shared_ptr<GenerationJob>& job);
  void forget(const std::shared_ptr<GenerationJob>& job);
  std::string new_id();

  struct PromptOf {
    std::shared_ptr<GenerationJob> job;
    std::size_t prompt = 0;
    RequestMeter meter;
    std::uint64_t queued_tokens = 0;  // while it has no token
  };
  using Prompts = std::unordered_map<TextRequestId, PromptOf>;
  void leave_queue(const PromptOf& prompt);

  ApiConfig config_;
  ApiHost host_;
  TextEngine& engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int64_t started_s_;
  MetricSlot slot_;
  Admission admission_;
  Prompts prompts_;
  std::unordered_map<GenerationJob*, std::shared_ptr<GenerationJob>> jobs_;
  std::vector<std::pair<std::uint64_t, std::shared_ptr<Exchange>>> resets_;  // of prefix caches, by number; not done
  bool draining_ = false;
  std::uint64_t id_key_, ids_ = 0;
  std::size_t bytes_beside_ = 0;        // of bodies that are read beside this thread
  std::optional<EncoderPool> readers_;  // after what its jobs read
};

}  // namespace chorus
