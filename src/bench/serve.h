// A load on a running server, over HTTP, and what its clients see: `vllm bench serve`'s measure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/serve_dataset.h"
#include "bench/serve_metrics.h"
#include "bench/workload.h"
#include "client/endpoint.h"
#include "json/json.h"

namespace chorus {

struct ServeBenchOptions {
  std::string backend = "openai";  // openai (or vllm): completions; openai-chat: chats
  std::string path;                // of the API; "": the backend's
  std::string model;               // in each request; "": the server's first
  std::vector<std::string> headers;
  DatasetOptions dataset;
  std::vector<double> request_rates = {};  // each in turn, with the same requests; empty: all at once
  Arrivals arrivals;                       // but for the rate
  bool self_timed = false;                 // a trace's own times in the place of arrivals
  int max_concurrency = 0;                 // 0: any number
  int num_warmups = 0;                     // copies of the first request, untimed
  int ready_timeout_s = 0;                 // how long to wait until /health answers with 200; 0: not at all
  bool ignore_eos = false;                 // each answer has as many tokens as was asked for
  std::string request_id_prefix;
  Json body = Json::object();  // of every request: sampling parameters and what else the server takes
  ServeReport report;          // how it is told; model_id, num_prompts and arrivals are filled in
};

// One rate: vLLM's object. Several: {"results": [..]}, one a rate, and a plot of latency over load; each then sends a
// `cache_salt` that no other run has, unless `body` has one, so that it finds nothing in the server's prefix cache that
// another one left there. invalid_argument, before anything is measured: an option, or the dataset.
Result<BenchResult> measure_serve(const ServeBenchOptions& options, const Endpoint& endpoint, const BenchHooks& hooks);

}  // namespace chorus
