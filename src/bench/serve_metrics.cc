#include "bench/serve_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <string_view>

#include "base/text_values.h"
#include "bench/statistics.h"

namespace chorus {
namespace {

struct Metric {
  const char* name;    // in options and fields
  const char* title;   // in lines
  const char* header;  // above them
};
constexpr std::array<Metric, 6> known_metrics = {{
    {"ttft", "TTFT", "Time to First Token"},
    {"tpot", "TPOT", "Time per Output Token (excl. 1st token)"},
    {"itl", "ITL", "Inter-token Latency"},
    {"e2el", "E2EL", "End-to-end Latency"},
    {"client_queue_time", "Client Queue Time", "Client-side Queueing"},
    {"e2el_including_client_queue", "E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"},
}};

std::string centred(std::string_view text, char filler) {
  constexpr std::size_t width = 50;
  const std::size_t left = (width - std::min(width, text.size())) / 2;
  const std::size_t right = width - std::min(width, text.size() + left);
  return fmt::format("{}{}{}\n", std::string(left, filler), text, std::string(right, filler));
}

std::string line(const std::string& name, std::uint64_t count) {
  return fmt::format("{:<40} {:<10}\n", name, count);
}

std::string line(const std::string& name, double value) {
  return fmt::format("{:<40} {:<10.2f}\n", name, value);
}

// The measures of all requests that were answered, in seconds.
struct Samples {
  std::vector<double> ttft, tpot, itl, e2el, queue, e2el_and_queue;
  std::vector<double> tpot_of_all;  // 0 where there was one token
  std::uint64_t input_tokens = 0, output_tokens = 0;
  std::size_t completed = 0;

  explicit Samples(const std::vector<LoadOutcome>& outcomes) {
    for (const LoadOutcome& outcome : outcomes) {
      if (outcome.success) add(outcome);
    }
  }
  const std::vector<double>& of(std::string_view metric) const {
    const std::array<const std::vector<double>*, known_metrics.size()> all = {&ttft, &tpot,  &itl,
                                                                              &e2el, &queue, &e2el_and_queue};
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (metric == known_metrics[i].name) return *all[i];
    }
    return ttft;
  }

 private:
  void add(const LoadOutcome& outcome) {
    ++completed;
    input_tokens += outcome.prompt_tokens;
    output_tokens += outcome.output_tokens;
    double per_token = 0;
    if (outcome.output_tokens > 1) {
      per_token = (outcome.latency_s - outcome.ttft_s) / static_cast<double>(outcome.output_tokens - 1);
      tpot.push_back(per_token);
    }
    tpot_of_all.push_back(per_token);
    ttft.push_back(outcome.ttft_s);
    itl.insert(itl.end(), outcome.itl_s.begin(), outcome.itl_s.end());
    e2el.push_back(outcome.latency_s);
    queue.push_back(outcome.queue_s);
    e2el_and_queue.push_back(outcome.latency_s + outcome.queue_s);
  }
};

std::size_t good_requests(const Samples& samples, const std::vector<std::pair<std::string, double>>& goodput) {
  std::size_t good = 0;
  for (std::size_t i = 0; i < samples.completed; ++i) {
    good += std::ranges::all_of(goodput, [&](const auto& bound) {
      const auto& [metric, milliseconds] = bound;
      const std::vector<double>& values = metric == "tpot" ? samples.tpot_of_all : samples.of(metric);
      return values[i] <= milliseconds / 1000;
    });
  }
  return good;
}

struct Peaks {
  double tokens_per_second = 0;  // in the fullest second
  std::size_t requests = 0;      // under way in one second
};

// Seconds are counted from the first start.
Peaks peaks_of(const std::vector<LoadOutcome>& outcomes) {
  double first = std::numeric_limits<double>::infinity(), last = 0;
  for (const LoadOutcome& outcome : outcomes) {
    if (!outcome.success) continue;
    first = std::min(first, outcome.start_s);
    last = std::max(last, outcome.start_s + outcome.latency_s);
  }
  if (last == 0) return {};
  std::vector<double> tokens(static_cast<std::size_t>(std::ceil(last - first)) + 1);
  std::vector<std::size_t> requests(tokens.size());
  const auto second_of = [&](double time) {
    return std::min(static_cast<std::size_t>(std::max(time - first, 0.0)), tokens.size() - 1);
  };
  for (const LoadOutcome& outcome : outcomes) {
    if (!outcome.success) continue;
    // An event may have several tokens; vLLM counts it as one, which would make the peak lower than the mean.
    const double per_event = static_cast<double>(outcome.output_tokens) / static_cast<double>(outcome.itl_s.size() + 1);
    double at = outcome.start_s + outcome.ttft_s;
    tokens[second_of(at)] += per_event;
    for (const double gap : outcome.itl_s) tokens[second_of(at += gap)] += per_event;
    const std::size_t end = second_of(outcome.start_s + outcome.latency_s);
    for (std::size_t second = second_of(outcome.start_s); second <= end; ++second) ++requests[second];
  }
  return {*std::ranges::max_element(tokens), *std::ranges::max_element(requests)};
}

struct Measured {
  Samples samples;
  Peaks peaks;
  std::size_t failed;
  double duration_s;
  std::size_t good;

  Measured(const LoadRun& run, const ServeReport& report)
      : samples(run.outcomes),
        peaks(peaks_of(run.outcomes)),
        failed(run.outcomes.size() - samples.completed),
        duration_s(run.duration_s),
        good(good_requests(samples, report.goodput)) {}
  double a_second(std::uint64_t count) const { return static_cast<double>(count) / duration_s; }
  std::uint64_t tokens() const { return samples.input_tokens + samples.output_tokens; }
};

Json header_json(const ServeReport& report, const std::string& date) {
  Json json = {{"date", date},
               {"endpoint_type", report.backend},
               {"backend", report.backend},
               {"label", report.label.empty() ? Json(nullptr) : Json(report.label)},
               {"model_id", report.model_id},
               {"tokenizer_id", report.tokenizer_id},
               {"num_prompts", report.num_prompts}};
  for (const auto& [name, value] : report.metadata) json[name] = value;
  const double rate = report.arrivals.request_rate;
  json["request_rate"] = std::isinf(rate) ? Json("inf") : Json(rate);
  const double burstiness = report.arrivals.burstiness;
  json["burstiness"] = std::isinf(burstiness) ? Json("inf") : Json(burstiness);
  json["max_concurrency"] = report.max_concurrency == 0 ? Json(nullptr) : Json(report.max_concurrency);
  if (const RampUp& ramp = report.arrivals.ramp_up; !ramp.strategy.empty()) {
    json["ramp_up_strategy"] = ramp.strategy;
    json["ramp_up_start_rps"] = ramp.from;
    json["ramp_up_end_rps"] = ramp.to;
  }
  return json;
}

Json totals_json(const Measured& measured, const ServeReport& report) {
  const Samples& samples = measured.samples;
  return {{"duration", measured.duration_s},
          {"completed", samples.completed},
          {"failed", measured.failed},
          {"total_input_tokens", samples.input_tokens},
          {"total_output_tokens", samples.output_tokens},
          {"request_throughput", measured.a_second(samples.completed)},
          {"request_goodput", report.goodput.empty() ? Json(nullptr) : Json(measured.a_second(measured.good))},
          {"output_throughput", measured.a_second(samples.output_tokens)},
          {"total_token_throughput", measured.a_second(measured.tokens())}};
}

std::string totals_table(const Measured& measured, const ServeReport& report) {
  const Samples& samples = measured.samples;
  std::string table = centred(" Serving Benchmark Result ", '=');
  table += line("Successful requests:", std::uint64_t{samples.completed});
  table += line("Failed requests:", std::uint64_t{measured.failed});
  if (report.max_concurrency > 0) {
    table += line("Maximum request concurrency:", static_cast<std::uint64_t>(report.max_concurrency));
  }
  if (const double rate = report.arrivals.request_rate; !std::isinf(rate)) {
    table += line("Request rate configured (RPS):", rate);
  }
  table += line("Benchmark duration (s):", measured.duration_s);
  table += line("Total input tokens:", samples.input_tokens);
  table += line("Total generated tokens:", samples.output_tokens);
  table += line("Request throughput (req/s):", measured.a_second(samples.completed));
  if (!report.goodput.empty()) table += line("Request goodput (req/s):", measured.a_second(measured.good));
  table += line("Output token throughput (tok/s):", measured.a_second(samples.output_tokens));
  table += line("Peak output token throughput (tok/s):", measured.peaks.tokens_per_second);
  table += line("Peak concurrent requests:", static_cast<double>(measured.peaks.requests));
  return table + line("Total token throughput (tok/s):", measured.a_second(measured.tokens()));
}

void add_list(Json* json, const char* name, const std::vector<LoadOutcome>& outcomes,
              const std::function<Json(const LoadOutcome&)>& value_of) {
  Json& list = (*json)[name] = Json::array();
  for (const LoadOutcome& outcome : outcomes) list.push_back(value_of(outcome));
}

// In vLLM's order; of the lists two are there without --save-detailed too, as in its release 0.33.
void add_lists(Json* json, const std::vector<LoadOutcome>& outcomes, bool detailed) {
  using Outcome = const LoadOutcome&;
  if (detailed) {
    add_list(json, "input_lens", outcomes, [](Outcome o) { return o.prompt_tokens; });
    add_list(json, "output_lens", outcomes, [](Outcome o) { return o.success ? o.output_tokens : 0; });
    add_list(json, "ttfts", outcomes, [](Outcome o) { return o.ttft_s; });
    add_list(json, "itls", outcomes, [](Outcome o) { return o.itl_s; });
  }
  add_list(json, "latencies", outcomes, [](Outcome o) { return o.latency_s; });
  if (detailed) add_list(json, "start_times", outcomes, [](Outcome o) { return o.start_s; });
  add_list(json, "queue_times", outcomes, [](Outcome o) { return o.queue_s; });
  if (detailed) {
    add_list(json, "generated_texts", outcomes, [](Outcome o) { return o.text; });
    add_list(json, "errors", outcomes, [](Outcome o) { return o.error; });
  }
}

// Adds to both; 0 where there is no sample, as vLLM does.
void add_metric(const Metric& metric, const std::vector<double>& values, const std::vector<double>& percentiles,
                ServeFigures* figures) {
  const double middle = values.empty() ? 0 : median(values);
  figures->table += centred(metric.header, '-');
  figures->table += line(fmt::format("Mean {} (ms):", metric.title), mean(values) * 1000);
  figures->table += line(fmt::format("Median {} (ms):", metric.title), middle * 1000);
  figures->json[fmt::format("mean_{}_ms", metric.name)] = mean(values) * 1000;
  figures->json[fmt::format("median_{}_ms", metric.name)] = middle * 1000;
  figures->json[fmt::format("std_{}_ms", metric.name)] = standard_deviation(values) * 1000;
  for (const double percent : percentiles) {
    const double value = values.empty() ? 0 : percentile(values, percent) * 1000;
    figures->table += line(fmt::format("P{} {} (ms):", percent, metric.title), value);
    figures->json[fmt::format("p{}_{}_ms", percent, metric.name)] = value;
  }
}

// A rate is told without --max-concurrency too; the queue's times only with it.
bool is_told(const Metric& metric, const ServeReport& report) {
  const std::string_view name = metric.name;
  if (std::ranges::find(report.metrics, name) == report.metrics.end()) return false;
  if (name == "client_queue_time") return report.max_concurrency > 0;
  if (name == "e2el_including_client_queue") {
    return report.max_concurrency > 0 && !std::isinf(report.arrivals.request_rate);
  }
  return true;
}

}  // namespace

Result<std::vector<std::string>> parse_metrics(const std::string& text) {
  std::vector<std::string> metrics;
  for (const std::string_view metric : split(text, ',')) {
    metrics.emplace_back(metric);
    const auto is_it = [&metric](const Metric& known) { return metric == known.name; };
    if (std::ranges::any_of(known_metrics, is_it)) continue;
    std::vector<std::string> names;
    for (const Metric& known : known_metrics) names.emplace_back(known.name);
    return fail(ErrorCode::invalid_argument, "--percentile-metrics: \"{}\" is none of {}", metric,
                fmt::join(names, ", "));
  }
  return metrics;
}

Result<std::vector<double>> parse_percentiles(const std::string& text) {
  std::vector<double> percentiles;
  for (const std::string_view part : split(text, ',')) {
    const auto percent = number_in<double>(part);
    if (!percent || *percent < 0 || *percent > 100) {
      return fail(ErrorCode::invalid_argument, "--metric-percentiles {}: give numbers from 0 to 100, as in 50,99",
                  text);
    }
    percentiles.push_back(*percent);
  }
  return percentiles;
}

Result<std::vector<std::pair<std::string, double>>> parse_goodput(const std::vector<std::string>& words) {
  std::vector<std::pair<std::string, double>> bounds;
  for (const std::string& word : words) {
    const std::size_t colon = std::min(word.find(':'), word.size());
    const std::string name = word.substr(0, colon);
    const auto bound = number_in<double>(std::string_view(word).substr(std::min(colon + 1, word.size())));
    if ((name != "ttft" && name != "tpot" && name != "e2el") || !bound || *bound < 0) {
      return fail(ErrorCode::invalid_argument,
                  "--goodput {}: give ttft, tpot or e2el and its bound in milliseconds, as in ttft:200", word);
    }
    bounds.emplace_back(name, *bound);
  }
  return bounds;
}

Result<void> check_metadata(const ServeReport& report) {
  ServeReport fullest = report;  // the one with all fields
  fullest.metadata.clear();
  fullest.arrivals.request_rate = 1;
  fullest.arrivals.ramp_up.strategy = "linear";
  fullest.max_concurrency = 1;
  fullest.detailed = true;
  fullest.metrics.clear();
  for (const Metric& known : known_metrics) fullest.metrics.emplace_back(known.name);
  const Json fields = figures_of({{}, 1}, fullest, "").json;
  for (const auto& [name, value] : report.metadata) {
    if (!fields.contains(name)) continue;
    return fail(ErrorCode::invalid_argument, "--metadata {}={}: the result has a field of that name: give another one",
                name, value);
  }
  return {};
}

std::string python_number(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == text.npos ? text + ".0" : text;
}

ServeFigures figures_of(const LoadRun& run, const ServeReport& report, const std::string& date) {
  const Measured measured(run, report);
  ServeFigures figures;
  figures.completed = measured.samples.completed;
  figures.failed = measured.failed;
  for (const LoadOutcome& outcome : run.outcomes) {
    if (figures.first_error.empty() && !outcome.success) figures.first_error = outcome.error;
  }
  figures.json = header_json(report, date);
  figures.json.update(totals_json(measured, report));
  add_lists(&figures.json, run.outcomes, report.detailed);
  figures.json.update({{"max_output_tokens_per_s", measured.peaks.tokens_per_second},
                       {"max_concurrent_requests", measured.peaks.requests},
                       {"rtfx", 0.0}});  // of speech, which this does not measure
  figures.table = totals_table(measured, report);
  for (const Metric& metric : known_metrics) {
    if (is_told(metric, report)) {
      add_metric(metric, measured.samples.of(metric.name), report.percentiles, &figures);
    }
  }
  figures.table += std::string(50, '=') + "\n";
  figures.ttft_s = measured.samples.ttft;
  figures.tpot_s = measured.samples.tpot;
  figures.e2el_s = measured.samples.e2el;
  return figures;
}

}  // namespace chorus
