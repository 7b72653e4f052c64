#include "bench/serve.h"

#include <poll.h>

#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "bench/serve_load.h"
#include "bench/statistics.h"
#include "client/http_client.h"
#include "client/model_name.h"
#include "json/member.h"

namespace chorus {
namespace {

constexpr int ready_look_ms = 200;

bool is_chat(const ServeBenchOptions& options) {
  return options.backend == "openai-chat";
}

std::string local_date() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &local)};
}

Result<void> wait_until_ready(const ServeBenchOptions& options, const Endpoint& endpoint, const BenchHooks& hooks) {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{options.ready_timeout_s} * 1'000'000'000;
  while (options.ready_timeout_s > 0) {
    const auto answer = fetch(endpoint, "/health", "", hooks.interrupted);
    if (answer.ok()) break;
    if (answer.error().code == ErrorCode::cancelled) return answer.error();
    if (monotonic_now() > deadline) {
      return fail(ErrorCode::deadline_exceeded, "the server is not ready after --ready-check-timeout-sec {}: {}",
                  options.ready_timeout_s, answer.error().message);
    }
    ::poll(nullptr, 0, ready_look_ms);
  }
  return {};
}

Result<std::vector<TokenId>> token_ids_of(const Json& answer) {
  std::vector<TokenId> ids;
  const Json& tokens = member(answer, "tokens");
  if (!tokens.is_array()) return fail(ErrorCode::unavailable, "the answer of /tokenize has no list of tokens");
  for (const Json& token : tokens) {
    if (!token.is_number_integer()) return fail(ErrorCode::unavailable, "/tokenize gave what is no token id");
    ids.push_back(token.get<TokenId>());
  }
  return ids;
}

Result<Json> ask(const Endpoint& endpoint, const std::string& target, const Json& body, const BenchHooks& hooks) {
  const auto answer = fetch(endpoint, target, body.dump(), hooks.interrupted);
  if (!answer.ok()) {
    return with_context(answer.error(), fmt::format("this dataset's prompts are made with the server's {}", target));
  }
  return parse_json(*answer);
}

ServeTokenizer servers_tokenizer(const Endpoint& endpoint, const std::string& model, const BenchHooks& hooks) {
  ServeTokenizer tokenizer;
  tokenizer.tokenize = [=](const std::string& text, bool add_special_tokens) -> Result<std::vector<TokenId>> {
    const Json body = {{"model", model}, {"prompt", text}, {"add_special_tokens", add_special_tokens}};
    CHORUS_TRY(const Json answer, ask(endpoint, "/tokenize", body, hooks));
    return token_ids_of(answer);
  };
  tokenizer.detokenize = [=](const std::vector<TokenId>& ids) -> Result<std::string> {
    CHORUS_TRY(const Json answer, ask(endpoint, "/detokenize", {{"model", model}, {"tokens", ids}}, hooks));
    const Json& text = member(answer, "prompt");
    if (text.is_string()) return text.get<std::string>();
    return fail(ErrorCode::unavailable, "the answer of /detokenize has no text");
  };
  return tokenizer;
}

LoadRequest request_of(const ServePrompt& prompt, const ServeBenchOptions& options, std::size_t index) {
  Json body = {{"model", options.model}};
  if (is_chat(options)) {
    body["messages"] = {{{"role", "user"}, {"content", prompt.text}}};
  } else if (prompt.ids.empty()) {
    body["prompt"] = prompt.text;
  } else {
    body["prompt"] = prompt.ids;
  }
  body[is_chat(options) ? "max_completion_tokens" : "max_tokens"] = prompt.output_len;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options.ignore_eos) body["ignore_eos"] = true;
  body.update(options.body);
  LoadRequest request;
  request.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (!options.request_id_prefix.empty()) request.id = fmt::format("{}{}", options.request_id_prefix, index);
  request.prompt_tokens = prompt.tokens;
  return request;
}

class ServeBench {
 public:
  ServeBench(const ServeBenchOptions& options, const Endpoint& endpoint, const BenchHooks& hooks)
      : options_(options), hooks_(hooks) {
    target_.endpoint = endpoint;
    target_.headers = options.headers;
    target_.max_concurrency = options.max_concurrency;
    target_.path = options.path;
    if (target_.path.empty()) target_.path = is_chat(options) ? "/v1/chat/completions" : "/v1/completions";
  }

  Result<void> prepare() {
    CHORUS_TRY_VOID(wait_until_ready(options_, target_.endpoint, hooks_));
    if (options_.model.empty()) {
      CHORUS_TRY(options_.model, first_model(target_.endpoint, hooks_.interrupted));
    }
    DatasetOptions& dataset = options_.dataset;
    dataset.as_text = is_chat(options_);
    if (dataset.name == "random" || dataset.name == "timed_trace") options_.ignore_eos = true;  // as vLLM does
    CHORUS_TRY(prompts_, load_dataset(dataset, servers_tokenizer(target_.endpoint, options_.model, hooks_)));
    ServeReport& report = options_.report;
    if (report.model_id.empty()) report.model_id = options_.model;
    if (report.tokenizer_id.empty()) report.tokenizer_id = report.model_id;
    report.backend = options_.backend;
    report.num_prompts = dataset.num_prompts;
    report.max_concurrency = options_.max_concurrency;
    render("");
    return warm_up();
  }

  // `round`: how many were measured before it.
  Result<ServeFigures> measure(double rate, std::size_t round) {
    if (round > 0) render("bench-" + std::to_string(round));
    Arrivals arrivals = options_.arrivals;
    arrivals.request_rate = rate;
    const auto times = arrival_times(arrivals, requests_.size(), options_.dataset.seed);
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      requests_[i].at_s = options_.self_timed ? prompts_[i].at_s : times[i];
    }
    const std::string what = std::isinf(rate) ? "bench serve" : fmt::format("bench serve, {} requests/s", rate);
    CHORUS_TRY(const LoadRun run, load(requests_, what));
    options_.report.arrivals = arrivals;
    return figures_of(run, options_.report, local_date());
  }

 private:
  Result<LoadRun> load(const std::vector<LoadRequest>& requests, const std::string& what) {
    std::function<void(const GenerationProgress&)> update;
    if (hooks_.begin_progress) update = hooks_.begin_progress(what, requests.size());
    return run_load(target_, requests, hooks_.interrupted, [&update](std::size_t ended, std::uint64_t tokens) {
      if (update) update({ended, tokens});
    });
  }

  // A salt of its own, so that a run finds nothing in the prefix cache that another one left there.
  void render(const std::string& cache_salt) {
    if (!cache_salt.empty()) options_.body["cache_salt"] = cache_salt;
    requests_.clear();
    for (const ServePrompt& prompt : prompts_) requests_.push_back(request_of(prompt, options_, requests_.size()));
  }

  Result<void> warm_up() {
    if (options_.num_warmups == 0) return {};
    const std::vector<LoadRequest> requests(static_cast<std::size_t>(options_.num_warmups), requests_.front());
    CHORUS_TRY(const LoadRun run, load(requests, "warm-up"));
    for (const LoadOutcome& outcome : run.outcomes) {
      if (!outcome.success) return fail(ErrorCode::unavailable, "a request of --num-warmups failed: {}", outcome.error);
    }
    return {};
  }

  ServeBenchOptions options_;
  const BenchHooks& hooks_;
  LoadTarget target_;
  std::vector<ServePrompt> prompts_;
  std::vector<LoadRequest> requests_;
};

Result<void> check(const ServeBenchOptions& options) {
  if (options.backend != "openai" && options.backend != "vllm" && !is_chat(options)) {
    return fail(ErrorCode::invalid_argument, "--backend {}: known are openai, vllm (the same) and openai-chat",
                options.backend);
  }
  for (const double rate : options.request_rates) {
    if (!(rate > 0)) return fail(ErrorCode::invalid_argument, "--request-rate {}: give a number above 0, or inf", rate);
  }
  if (!(options.arrivals.burstiness > 0)) {
    return fail(ErrorCode::invalid_argument, "--burstiness {}: give a number above 0", options.arrivals.burstiness);
  }
  CHORUS_TRY_VOID(check_at_least("--max-concurrency", options.max_concurrency, 0));
  CHORUS_TRY_VOID(check_at_least("--num-warmups", options.num_warmups, 0));
  const RampUp& ramp = options.arrivals.ramp_up;
  if (ramp.strategy.empty()) return {};
  const bool is_known = ramp.strategy == "linear" || ramp.strategy == "exponential";
  if (!is_known || !(ramp.from > 0) || !(ramp.to >= ramp.from)) {
    return fail(
        ErrorCode::invalid_argument,
        "--ramp-up-strategy {} from {} to {}: give linear or exponential, and --ramp-up-start-rps above 0 and at "
        "most --ramp-up-end-rps",
        ramp.strategy, ramp.from, ramp.to);
  }
  if (options.request_rates.empty()) return {};
  return fail(ErrorCode::invalid_argument, "--ramp-up-strategy and --request-rate: give one of them");
}

using RateFigures = std::pair<double, ServeFigures>;

struct Measure {
  const char* title;
  std::vector<double> ServeFigures::*values;
};
constexpr Measure measures[] = {{"Time to first token", &ServeFigures::ttft_s},
                                {"Time per output token", &ServeFigures::tpot_s},
                                {"End to end", &ServeFigures::e2el_s}};

PlotPanel over_load(const Measure& measure, const std::vector<RateFigures>& runs) {
  PlotPanel panel{measure.title, "requests a second", "ms", {{"p50", {}}, {"p90", {}}, {"p99", {}}}};
  for (const auto& [rate, figures] : runs) {
    const std::vector<double>& values = figures.*measure.values;
    if (std::isinf(rate) || values.empty()) continue;
    panel.series[0].points.emplace_back(rate, percentile(values, 50) * 1000);
    panel.series[1].points.emplace_back(rate, percentile(values, 90) * 1000);
    panel.series[2].points.emplace_back(rate, percentile(values, 99) * 1000);
  }
  return panel;
}

// Of one rate the percentiles; of several three of them over the rates, but for an infinite one, which has no place.
Plot plot_of(const std::vector<RateFigures>& runs, const ServeBenchOptions& options) {
  Plot plot;
  const ServeFigures& first = runs.front().second;
  plot.title = runs.size() == 1 ? "bench serve" : "bench serve: latency over load";
  plot.note =
      fmt::format("{}, {} requests{}, {}", first.json["model_id"].get<std::string>(),
                  first.json["num_prompts"].get<int>(), runs.size() == 1 ? "" : " at each rate", options.dataset.name);
  for (const Measure& measure : measures) {
    if (runs.size() > 1) {
      plot.panels.push_back(over_load(measure, runs));
    } else {
      plot.panels.push_back({measure.title, "percentile", "ms", {{"", percentile_curve(first.*measure.values, 1000)}}});
    }
  }
  return plot;
}

}  // namespace

Result<BenchResult> measure_serve(const ServeBenchOptions& options, const Endpoint& endpoint, const BenchHooks& hooks) {
  CHORUS_TRY_VOID(check(options));
  ServeBench bench(options, endpoint, hooks);
  CHORUS_TRY_VOID(bench.prepare());
  std::vector<double> rates = options.request_rates;
  if (rates.empty()) rates.push_back(std::numeric_limits<double>::infinity());
  std::vector<RateFigures> runs;
  BenchResult result;
  for (const double rate : rates) {
    CHORUS_TRY(ServeFigures figures, bench.measure(rate, runs.size()));
    result.table += figures.table;
    result.failed += figures.failed;
    if (result.first_error.empty()) result.first_error = figures.first_error;
    runs.emplace_back(rate, std::move(figures));
  }
  result.plot = plot_of(runs, options);
  if (runs.size() == 1) {
    result.json = std::move(runs.front().second.json);
  } else {
    result.json = {{"results", Json::array()}};
    for (auto& [rate, figures] : runs) result.json["results"].push_back(std::move(figures.json));
  }
  return result;
}

}  // namespace chorus
