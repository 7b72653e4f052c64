#include "bench/serve.h"

#include <poll.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/random_hex.h"
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

// What the command line gave need not be UTF-8.
std::string text_of(const Json& body) {
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
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
  const auto answer = fetch(endpoint, target, text_of(body), hooks.interrupted);
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

LoadRequest request_of(const ServePrompt& prompt, const ServeBenchOptions& options, std::size_t index,
                       const std::string& cache_salt) {
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
  if (!cache_salt.empty()) body["cache_salt"] = cache_salt;
  body.update(options.body);
  LoadRequest request;
  request.body = text_of(body);
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
    if (options_.request_rates.empty()) options_.request_rates = {std::numeric_limits<double>::infinity()};
  }
  const ServeBenchOptions& options() const { return options_; }  // complete after prepare()

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
    for (const double rate : options_.request_rates) CHORUS_TRY_VOID(times_at(rate));
    if (options_.request_rates.size() > 1) {
      CHORUS_TRY(cache_salt_, random_hex(8));
    }
    render("");
    return warm_up();
  }

  // `round`: how many were measured before it.
  Result<ServeFigures> measure(double rate, std::size_t round) {
    if (!cache_salt_.empty()) render(fmt::format("{}-{}", cache_salt_, round));
    CHORUS_TRY(const std::vector<double> times, times_at(rate));
    for (std::size_t i = 0; i < requests_.size(); ++i) requests_[i].at_s = times[i];
    const std::string what = std::isinf(rate) ? "bench serve" : fmt::format("bench serve, {} requests/s", rate);
    CHORUS_TRY(const LoadRun run, load(requests_, what));
    options_.report.arrivals = arrivals_at(rate);
    return figures_of(run, options_.report, local_date());
  }

 private:
  Arrivals arrivals_at(double rate) const {
    Arrivals arrivals = options_.arrivals;
    arrivals.request_rate = rate;
    return arrivals;
  }

  // Of the prompts.
  Result<std::vector<double>> times_at(double rate) const {
    std::vector<double> times = arrival_times(arrivals_at(rate), prompts_.size(), options_.dataset.seed);
    if (options_.self_timed) std::ranges::transform(prompts_, times.begin(), &ServePrompt::at_s);
    const auto late = std::ranges::find_if(times, [](double time) { return !(time <= arrival_max_s); });
    if (late == times.end()) return times;
    return fail(ErrorCode::invalid_argument,
                "request {} of {} would begin after {:.3g} s, more than a year: give a higher --request-rate, "
                "--ramp-up-start-rps or --burstiness, or fewer --num-prompts",
                late - times.begin() + 1, times.size(), *late);
  }

  Result<LoadRun> load(const std::vector<LoadRequest>& requests, const std::string& what) {
    std::function<void(const GenerationProgress&)> update;
    if (hooks_.begin_progress) update = hooks_.begin_progress(what, requests.size());
    return run_load(target_, requests, hooks_.interrupted, [&update](std::size_t ended, std::uint64_t tokens) {
      if (update) update({ended, tokens});
    });
  }

  void render(const std::string& cache_salt) {
    requests_.clear();
    for (const ServePrompt& prompt : prompts_) {
      requests_.push_back(request_of(prompt, options_, requests_.size(), cache_salt));
    }
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
  std::string cache_salt_;  // "": there is one rate alone
  std::vector<ServePrompt> prompts_;
  std::vector<LoadRequest> requests_;
};

Result<void> check_ramp_up(const ServeBenchOptions& options) {
  const RampUp& ramp = options.arrivals.ramp_up;
  const bool has_ends = ramp.from != 0 || ramp.to != 0;
  if (options.self_timed && (!options.request_rates.empty() || has_ends || !ramp.strategy.empty())) {
    return fail(ErrorCode::invalid_argument,
                "--request-rate and --ramp-up-strategy do not count at a trace's own times: give --no-self-timed, or "
                "leave them out");
  }
  if (ramp.strategy.empty()) {
    if (!has_ends) return {};
    return fail(ErrorCode::invalid_argument,
                "--ramp-up-start-rps and --ramp-up-end-rps: give --ramp-up-strategy linear or exponential too");
  }
  const bool is_known = ramp.strategy == "linear" || ramp.strategy == "exponential";
  if (!is_known || !(ramp.from > 0) || !(ramp.to >= ramp.from) || std::isinf(ramp.to)) {
    return fail(
        ErrorCode::invalid_argument,
        "--ramp-up-strategy {} from {} to {}: give linear or exponential, and --ramp-up-start-rps above 0 and at "
        "most --ramp-up-end-rps",
        ramp.strategy, ramp.from, ramp.to);
  }
  if (options.request_rates.empty()) return {};
  return fail(ErrorCode::invalid_argument, "--ramp-up-strategy and --request-rate: give one of them");
}

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
  CHORUS_TRY_VOID(check_ramp_up(options));
  return check_metadata(options.report);
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
  plot.note = fmt::format("{}, {} requests{}, {}", options.report.model_id, first.completed + first.failed,
                          runs.size() == 1 ? "" : " at each rate", options.dataset.name);
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
  std::vector<RateFigures> runs;
  BenchResult result;
  for (const double rate : bench.options().request_rates) {
    CHORUS_TRY(ServeFigures figures, bench.measure(rate, runs.size()));
    result.table += figures.table;
    result.failed += figures.failed;
    if (result.first_error.empty()) result.first_error = figures.first_error;
    runs.emplace_back(rate, std::move(figures));
  }
  result.plot = plot_of(runs, bench.options());
  if (runs.size() == 1) {
    result.json = std::move(runs.front().second.json);
  } else {
    result.json = {{"results", Json::array()}};
    for (auto& [rate, figures] : runs) result.json["results"].push_back(std::move(figures.json));
  }
  return result;
}

}  // namespace chorus
