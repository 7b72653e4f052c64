#include "bench/serve_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LoadOutcome answered(double start_s, double ttft_s, std::vector<double> itl_s, std::uint64_t prompt_tokens) {
  LoadOutcome outcome;
  outcome.success = true;
  outcome.start_s = start_s;
  outcome.ttft_s = outcome.latency_s = ttft_s;
  for (const double gap : itl_s) outcome.latency_s += gap;
  outcome.output_tokens = itl_s.size() + 1;
  outcome.itl_s = std::move(itl_s);
  outcome.prompt_tokens = prompt_tokens;
  outcome.text = "x";
  return outcome;
}

LoadOutcome failed(std::uint64_t prompt_tokens) {
  LoadOutcome outcome;
  outcome.error = "refused";
  outcome.prompt_tokens = prompt_tokens;
  return outcome;
}

// Two answers and a failure over four seconds; all below is counted by hand.
LoadRun small_run() {
  return {{answered(100.0, 0.5, {0.25, 0.25}, 10), failed(7), answered(100.5, 0.25, {}, 20)}, 4.0};
}

TEST(ServeMetrics, CountsWhatWasAnswered) {
  ServeReport report;
  report.model_id = "m";
  report.detailed = true;
  const ServeFigures figures = figures_of(small_run(), report, "20260101-000000");
  const Json& json = figures.json;
  EXPECT_EQ(json["completed"], 2);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["total_input_tokens"], 30);
  EXPECT_EQ(json["total_output_tokens"], 4);
  EXPECT_EQ(json["request_throughput"], 0.5);
  EXPECT_EQ(json["output_throughput"], 1.0);
  EXPECT_EQ(json["total_token_throughput"], 8.5);
  EXPECT_EQ(json["request_goodput"], nullptr);
  EXPECT_EQ(json["input_lens"], Json({10, 7, 20}));
  EXPECT_EQ(json["output_lens"], Json({3, 0, 1}));
  EXPECT_EQ(json["errors"], Json({"", "refused", ""}));
  // All tokens but one come in the first second; the requests overlap in it.
  EXPECT_EQ(json["max_output_tokens_per_s"], 3.0);
  EXPECT_EQ(json["max_concurrent_requests"], 2);
  EXPECT_EQ(json["mean_ttft_ms"], 375.0);
  EXPECT_EQ(json["median_ttft_ms"], 375.0);
  EXPECT_EQ(json["std_ttft_ms"], 125.0);
  EXPECT_EQ(json["mean_tpot_ms"], 250.0);  // of the one that has a second token
  EXPECT_EQ(json["mean_itl_ms"], 250.0);
  EXPECT_FALSE(json.contains("mean_e2el_ms"));
  EXPECT_EQ(figures.failed, 1U);
  EXPECT_EQ(figures.first_error, "refused");
}

TEST(ServeMetrics, ABoundCountsThoseWithinIt) {
  ServeReport report;
  const auto good = [&](std::vector<std::pair<std::string, double>> bounds) {
    report.goodput = std::move(bounds);
    return figures_of(small_run(), report, "").json["request_goodput"].get<double>() * 4;
  };
  EXPECT_EQ(good({{"ttft", 500}}), 2);
  EXPECT_EQ(good({{"ttft", 499}}), 1);
  EXPECT_EQ(good({{"tpot", 249}}), 1);  // one token: nothing between two
  EXPECT_EQ(good({{"ttft", 500}, {"e2el", 250}}), 1);
  EXPECT_EQ(good({{"e2el", 0}}), 0);
}

TEST(ServeMetrics, TheBlockIsVllms) {
  ServeReport report;
  report.metrics = {"ttft", "client_queue_time"};
  report.percentiles = {50, 99.5};
  const std::string table = figures_of(small_run(), report, "").table;
  EXPECT_THAT(table, HasSubstr("============ Serving Benchmark Result ============\n"
                               "Successful requests:                     2         \n"
                               "Failed requests:                         1         \n"
                               "Benchmark duration (s):                  4.00      \n"));
  EXPECT_THAT(table, HasSubstr("---------------Time to First Token----------------\n"
                               "Mean TTFT (ms):                          375.00    \n"
                               "Median TTFT (ms):                        375.00    \n"
                               "P50 TTFT (ms):                           375.00    \n"
                               "P99.5 TTFT (ms):                         498.75    \n"
                               "==================================================\n"));
  report.max_concurrency = 8;
  EXPECT_THAT(figures_of(small_run(), report, "").table, HasSubstr("Client-side Queueing"));
}

TEST(ServeMetrics, WithoutAnAnswerAllIsZero) {
  const ServeFigures figures = figures_of({{failed(3)}, 2.0}, {}, "");
  EXPECT_EQ(figures.json["completed"], 0);
  EXPECT_EQ(figures.json["mean_ttft_ms"], 0.0);
  EXPECT_EQ(figures.json["p99_itl_ms"], 0.0);
  EXPECT_EQ(figures.json["max_concurrent_requests"], 0);
  EXPECT_THAT(figures.json.dump(), Not(HasSubstr("itls")));
  EXPECT_THAT(figures.json.dump(), HasSubstr("latencies"));
}

TEST(ServeMetrics, MetadataHasNamesOfItsOwn) {
  ServeReport report;
  report.metadata = {{"model", "m"}, {"version", "1"}, {"p50_ttft_ms", "no percentile that is asked for"}};
  EXPECT_TRUE(check_metadata(report).ok());
  for (const char* taken : {"date", "num_prompts", "burstiness", "ramp_up_end_rps", "duration", "itls", "rtfx",
                            "p99_e2el_ms", "mean_client_queue_time_ms"}) {
    report.metadata = {{"a", "b"}, {taken, "5"}};
    EXPECT_THAT(check_metadata(report).error().message, HasSubstr(taken));
  }
}

TEST(ServeMetrics, WrongWordsAreRefused) {
  EXPECT_THAT(parse_metrics("ttft,x").error().message, HasSubstr("e2el_including_client_queue"));
  EXPECT_EQ(*parse_percentiles("25,99.9"), (std::vector<double>{25, 99.9}));
  for (const char* wrong : {"", "101", "-1", "a", "50,"}) EXPECT_FALSE(parse_percentiles(wrong).ok()) << wrong;
  EXPECT_EQ(parse_goodput({"ttft:200"})->front().second, 200);
  for (const char* wrong : {"ttft", "itl:3", "ttft:", "ttft:-1", "ttft:a"}) {
    EXPECT_FALSE(parse_goodput({wrong}).ok()) << wrong;
  }
}

TEST(ServeMetrics, NumbersInFileNamesArePythons) {
  EXPECT_EQ(python_number(2), "2.0");
  EXPECT_EQ(python_number(0.5), "0.5");
  EXPECT_EQ(python_number(std::numeric_limits<double>::infinity()), "inf");
}

}  // namespace
}  // namespace chorus
