// What the outcomes of a serving benchmark come to: vLLM's figures, under vLLM's names (0.33, benchmarks/serve.py,
// calculate_metrics and benchmark). Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "bench/arrivals.h"
#include "bench/serve_load.h"
#include "json/json.h"

namespace chorus {

// What the result says beside what was measured, and which of the measures it has.
struct ServeReport {
  std::string backend = "openai", label, model_id, tokenizer_id;
  int num_prompts = 0;
  std::vector<std::pair<std::string, std::string>> metadata;
  Arrivals arrivals;
  int max_concurrency = 0;  // 0: none
  // Of ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue.
  std::vector<std::string> metrics = {"ttft", "tpot", "itl"};
  std::vector<double> percentiles = {99};
  std::vector<std::pair<std::string, double>> goodput;  // ttft, tpot or e2el, and its bound in milliseconds
  bool detailed = false;                                // a value a request for everything
};

// "ttft,e2el" and "50,99.9". invalid_argument: what is none of them, or no percentile.
Result<std::vector<std::string>> parse_metrics(const std::string& text);
Result<std::vector<double>> parse_percentiles(const std::string& text);
// "ttft:200" each.
Result<std::vector<std::pair<std::string, double>>> parse_goodput(const std::vector<std::string>& words);

// invalid_argument: a name of `metadata` is one that a result has already.
Result<void> check_metadata(const ServeReport& report);

struct ServeFigures {
  Json json;          // vLLM's object; without `detailed` without its long lists
  std::string table;  // vLLM's block
  std::size_t completed = 0, failed = 0;
  std::string first_error;
  std::vector<double> ttft_s, tpot_s, e2el_s;  // of all requests that were answered
};
// `date`: as vLLM writes it, 20261128-101500.
ServeFigures figures_of(const LoadRun& run, const ServeReport& report, const std::string& date);

// A number as Python prints it: 2.0, 0.5, inf.
std::string python_number(double value);

}  // namespace chorus
