// chorus bench serve: vLLM's options for a load on a server, a running one or one that it starts.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/text_values.h"
#include "bench/serve.h"
#include "cli/bench_report.h"
#include "cli/commands.h"
#include "cli/server_choice.h"
#include "json/file.h"
#include "json/file_write.h"

namespace chorus {
namespace {

constexpr std::size_t result_bytes_max = std::size_t{1} << 30;

struct ServeBenchCommand : BenchOptions {
  ServerChoice server;
  ServeBenchOptions what;
  std::string base_url, host = "127.0.0.1";
  int port = 8000;
  std::optional<int> input_len, output_len, logprobs, top_k;
  std::string request_rates, served_model_name, metrics = "ttft,tpot,itl", percentiles = "99";
  std::vector<std::string> headers, metadata, goodput;
  std::string extra_body;
  bool self_timed = false, no_self_timed = false, no_oversample = false, disable_shuffle = false, skip_template = false;
  bool save_result = false, save_detailed = false, append_result = false;
  std::string result_dir, result_filename;
  std::optional<double> temperature, top_p, min_p, frequency_penalty, presence_penalty, repetition_penalty;
};

// --- options

void declare_server(Options& options, ServeBenchCommand* command) {
  command->server.target = "";
  options.text("--base-url", &command->base_url, "the running server's URL, in the place of SERVER, --host and --port");
  options.text("--host", &command->host, "the running server's host (127.0.0.1)");
  options.number("--port", &command->port, "the running server's port");
  options.text("--backend", &command->what.backend, "openai: completions; openai-chat: chats");
  options.text("--endpoint", &command->what.path, "the API's path (/v1/completions, or /v1/chat/completions)");
  options.text("--model", &command->what.model, "the model's name in requests (the server's first)");
  options.text("--served-model-name", &command->served_model_name,
               "the same, where --model is said to be something else");
  options.words("--header", &command->headers, "NAME=VALUE: a header of each request");
  options.number("--ready-check-timeout-sec", &command->what.ready_timeout_s, "wait so long for the server; 0: not");
}

void declare_dataset(Options& options, DatasetOptions* dataset, ServeBenchCommand* command) {
  options.text("--dataset-name", &dataset->name, "random, sharegpt, custom or timed_trace");
  options.text("--dataset-path", &dataset->path, "its file");
  options.number("--num-prompts", &dataset->num_prompts, "requests at most; 0: all of a file");
  options.flag("--no-oversample", &command->no_oversample, "a file with fewer prompts is not drawn from again");
  options.flag("--disable-shuffle", &command->disable_shuffle, "a file's prompts in their order");
  options.flag("--skip-chat-template", &command->skip_template, "accepted: prompts of completions never have one");
  options.number("--input-len", &command->input_len, "the same as --random-input-len");
  options.number("--output-len", &command->output_len, "the output length of any dataset");
  options.number("--random-input-len", &dataset->random_input_len, "tokens of a random prompt");
  options.number("--random-output-len", &dataset->random_output_len, "tokens of its answer");
  options.number("--random-prefix-len", &dataset->random_prefix_len,
                 "tokens ahead of it that all random prompts share");
  options.text("--random-range-ratio", &dataset->random_range_ratio,
               "R: lengths from len * (1 - R) to len * (1 + R); or {\"input\": R, \"output\": R}");
  options.number("--sharegpt-output-len", &dataset->sharegpt_output_len, "in the place of the file's answers' lengths");
  options.number("--custom-output-len", &dataset->custom_output_len, "-1: each row's output_tokens");
  options.number("--timed-trace-chunk-hash-size", &dataset->trace_chunk,
                 "tokens of a hash id (512 in Mooncake's traces)");
  options.real("--timed-trace-sec-multiplier", &dataset->trace_seconds, "0.001 for timestamps in milliseconds");
  options.text("--timed-trace-label-timestamp", &dataset->trace_timestamp, "its field (timestamp)");
  options.text("--timed-trace-label-input-length", &dataset->trace_input, "its field (input_length)");
  options.text("--timed-trace-label-output-length", &dataset->trace_output, "its field (output_length)");
  options.text("--timed-trace-label-hash-ids", &dataset->trace_hashes, "its field (hash_ids)");
}

void declare_traffic(Options& options, ServeBenchCommand* command) {
  Arrivals& arrivals = command->what.arrivals;
  options.text(
      "--request-rate", &command->request_rates,
      "requests a second (inf: all at once); several, as in 1,2,4: each in turn, and a plot of latency over load");
  options.real("--burstiness", &arrivals.burstiness,
               "1: a Poisson process; less: in bursts; more: evenly; inf: exactly");
  options.text("--ramp-up-strategy", &arrivals.ramp_up.strategy, "linear or exponential, in the place of a rate");
  options.real("--ramp-up-start-rps", &arrivals.ramp_up.from, "requests a second at the beginning");
  options.real("--ramp-up-end-rps", &arrivals.ramp_up.to, "requests a second at the end");
  options.flag("--self-timed", &command->self_timed, "at the trace's own times (a timed_trace's default)");
  options.flag("--no-self-timed", &command->no_self_timed, "a trace's requests at --request-rate");
  options.number("--max-concurrency", &command->what.max_concurrency, "requests under way at most; 0: any number");
  options.number("--num-warmups", &command->what.num_warmups, "untimed copies of the first request");
  options.text("--request-id-prefix", &command->what.request_id_prefix, "of the X-Request-Id that is sent; \"\": none");
}

void declare_body(Options& options, ServeBenchCommand* command) {
  options.flag("--ignore-eos", &command->what.ignore_eos,
               "answers as long as asked for, whatever the model says; always of random prompts and traces");
  options.number("--logprobs", &command->logprobs, "logprobs a token to ask for");
  options.real("--temperature", &command->temperature, "temperature of each request (the server's own)");
  options.real("--top-p", &command->top_p, "top_p of each request (the server's own)");
  options.number("--top-k", &command->top_k, "top_k of each request (the server's own)");
  options.real("--min-p", &command->min_p, "min_p of each request (the server's own)");
  options.real("--frequency-penalty", &command->frequency_penalty,
               "frequency_penalty of each request (the server's own)");
  options.real("--presence-penalty", &command->presence_penalty, "presence_penalty of each request (the server's own)");
  options.real("--repetition-penalty", &command->repetition_penalty,
               "repetition_penalty of each request (the server's own)");
  options.text("--extra-body", &command->extra_body, "a JSON object of more fields for each request");
}

void declare_result(Options& options, ServeBenchCommand* command) {
  options.text("--percentile-metrics", &command->metrics,
               "what is told: ttft, tpot, itl, e2el, client_queue_time, e2el_including_client_queue (ttft,tpot,itl)");
  options.text("--metric-percentiles", &command->percentiles, "of them (99)");
  options.words("--goodput", &command->goodput,
                "ttft:MS, tpot:MS or e2el:MS; requests within all of them are counted as goodput");
  options.text("--label", &command->what.report.label, "of the result");
  options.words("--metadata", &command->metadata, "NAME=VALUE: more fields of the result");
  options.flag("--save-result", &command->save_result, "the result as a file named as vLLM names it");
  options.flag("--save-detailed", &command->save_detailed, "with each request's lengths, times, text and error");
  options.flag("--append-result", &command->append_result, "behind what the result's file has");
  options.text("--result-dir", &command->result_dir, "where it goes (the current directory)");
  options.text("--result-filename", &command->result_filename, "its name");
  options.flag("--disable-tqdm", &command->disable_progress_bars, "the same as --disable-progress-bars");
  command->declare(options);
}

// --- from words to values

using Pair = std::pair<std::string, std::string>;

Result<std::vector<Pair>> parse_pairs(const char* option, const std::vector<std::string>& words) {
  std::vector<Pair> pairs;
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    const bool is_line = word.find_first_of("\r\n") == word.npos;
    if (equals == word.npos || equals == 0 || !is_line) {
      return fail(ErrorCode::invalid_argument, "{} {}: give NAME=VALUE", option, word);
    }
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

Result<std::vector<double>> parse_rates(const std::string& text) {
  std::vector<double> rates;
  if (text.empty()) return rates;
  for (const std::string_view part : split(text, ',')) {
    const auto rate = number_in<double>(part);
    if (!rate || *rate <= 0) {
      return fail(ErrorCode::invalid_argument, "--request-rate {}: give numbers above 0, or inf, as in 1,2,4", text);
    }
    rates.push_back(*rate);
  }
  return rates;
}

Result<Json> body_of(const ServeBenchCommand& command) {
  Json body = Json::object();
  const std::pair<const char*, std::optional<double>> numbers[] = {{"top_p", command.top_p},
                                                                   {"min_p", command.min_p},
                                                                   {"temperature", command.temperature},
                                                                   {"frequency_penalty", command.frequency_penalty},
                                                                   {"presence_penalty", command.presence_penalty},
                                                                   {"repetition_penalty", command.repetition_penalty}};
  for (const auto& [name, value] : numbers) {
    if (value) body[name] = *value;
  }
  if (command.top_k) body["top_k"] = *command.top_k;
  const bool is_chat = command.what.backend == "openai-chat";
  if (command.logprobs) body[is_chat ? "top_logprobs" : "logprobs"] = *command.logprobs;
  if (command.logprobs && is_chat) body["logprobs"] = true;
  if (command.extra_body.empty()) return body;
  const Result<Json> more = parse_json(command.extra_body);
  if (!more.ok() || !more->is_object()) {
    return fail(ErrorCode::invalid_argument, "--extra-body {}: give a JSON object", command.extra_body);
  }
  body.update(*more);
  return body;
}

Result<void> complete_dataset(ServeBenchCommand* command) {
  DatasetOptions& dataset = command->what.dataset;
  dataset.oversample = !command->no_oversample;
  dataset.shuffle = !command->disable_shuffle;
  dataset.seed = command->server.engine.seed;
  if (command->input_len) dataset.random_input_len = *command->input_len;
  if (command->output_len) {
    dataset.random_output_len = dataset.custom_output_len = *command->output_len;
    dataset.sharegpt_output_len = command->output_len;
  }
  const bool is_trace = dataset.name == "timed_trace";
  if (!is_trace && (command->self_timed || command->no_self_timed)) {
    return fail(ErrorCode::invalid_argument, "--self-timed and --no-self-timed are for --dataset-name timed_trace");
  }
  command->what.self_timed = is_trace && !command->no_self_timed;
  command->inputs = {dataset.path};
  return {};
}

Result<void> complete_report(ServeBenchCommand* command) {
  ServeReport& report = command->what.report;
  CHORUS_TRY(report.metrics, parse_metrics(command->metrics));
  CHORUS_TRY(report.percentiles, parse_percentiles(command->percentiles));
  CHORUS_TRY(report.goodput, parse_goodput(command->goodput));
  CHORUS_TRY(report.metadata, parse_pairs("--metadata", command->metadata));
  report.detailed = command->save_detailed;
  report.model_id = command->what.model;
  report.tokenizer_id = command->server.engine.tokenizer;
  if (!command->served_model_name.empty()) command->what.model = command->served_model_name;
  return {};
}

// A seed is the prompts' here, and a tokenizer no more than a name for the result: prompts are made and counted by the
// server's own.
void keep_engine_words(ServeBenchCommand* command, std::vector<std::string>* words) {
  *words = *command->server.engine_words;
  std::erase_if(
      *words, [](const std::string& word) { return word.starts_with("--seed=") || word.starts_with("--tokenizer="); });
  command->server.engine_words = words;
}

Result<void> complete(ServeBenchCommand* command) {
  std::string& target = command->server.target;
  if (target.empty()) target = command->base_url;
  if (target.empty()) {
    const bool is_ipv6 = command->host.find(':') != command->host.npos;
    target = fmt::format("http://{}{}{}:{}", is_ipv6 ? "[" : "", command->host, is_ipv6 ? "]" : "", command->port);
  }
  CHORUS_TRY(command->what.request_rates, parse_rates(command->request_rates));
  CHORUS_TRY(command->what.body, body_of(*command));
  CHORUS_TRY(const auto headers, parse_pairs("--header", command->headers));
  for (const auto& [name, value] : headers) command->what.headers.push_back(fmt::format("{}: {}", name, value));
  CHORUS_TRY_VOID(complete_dataset(command));
  return complete_report(command);
}

// --- vLLM's file

std::string result_path(const ServeBenchCommand& command, const Json& result) {
  std::string name = command.result_filename;
  if (name.empty()) {
    const ServeReport& report = command.what.report;
    const std::string label = report.label.empty() ? command.what.backend : report.label;
    const std::string model = std::filesystem::path(result["model_id"].get<std::string>()).filename().string();
    const RampUp& ramp = command.what.arrivals.ramp_up;
    const std::string rate = !ramp.strategy.empty()
                                 ? fmt::format("ramp-up-{}-{:.0f}qps-{:.0f}", ramp.strategy, ramp.from, ramp.to)
                             : result["request_rate"].is_string() ? "inf"
                                                                  : python_number(result["request_rate"].get<double>());
    const std::string concurrency =
        command.what.max_concurrency > 0 ? fmt::format("-concurrency{}", command.what.max_concurrency) : "";
    name = fmt::format("{}-{}qps{}-{}-{}.json", label, rate, concurrency, model, result["date"].get<std::string>());
  }
  return (std::filesystem::path(command.result_dir) / name).string();
}

bool is_saved(const ServeBenchCommand& command) {
  return command.save_result || command.append_result;
}

// Makes the files' directory, and looks whether they can be written, so that a wrong name does not cost a measurement.
Result<void> prepare_saving(const ServeBenchCommand& command) {
  if (!is_saved(command)) return {};
  const std::string& name = command.result_filename;
  const std::size_t rates = command.what.request_rates.size();
  if (!name.empty() && rates > 1 && !command.append_result) {
    return fail(ErrorCode::invalid_argument,
                "--result-filename {}: each of the {} rates would replace the one before; give --append-result too, or "
                "leave the name out, which gives each rate its own file",
                name, rates);
  }
  const std::filesystem::path path = std::filesystem::path(command.result_dir) / name;
  const std::filesystem::path parent = name.empty() ? std::filesystem::path(command.result_dir) : path.parent_path();
  const std::string directory = parent.empty() ? "." : parent.string();
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return file_error("mkdir", directory, error.value());
  if (::access(directory.c_str(), W_OK | X_OK) != 0) return file_error("access", directory, errno);
  if (name.empty() || !std::filesystem::exists(path, error)) return {};
  if (std::filesystem::is_directory(path, error)) return file_error("open", path.string(), EISDIR);
  if (command.append_result) CHORUS_TRY_VOID(read_file(path.string(), result_bytes_max));
  return refuse_overwriting(path.string(), command.inputs);
}

Result<void> save_one(const std::string& path, const Json& result, bool appends) {
  std::string text;
  std::error_code ignored;
  if (appends && std::filesystem::exists(path, ignored)) {
    CHORUS_TRY(text, read_file(path, result_bytes_max));
    if (!text.empty()) text += '\n';
  }
  return replace_file(path, text + result.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Result<void> save(const ServeBenchCommand& command, const Json& result) {
  if (!is_saved(command)) return {};
  const auto results = result.find("results");
  if (results == result.end()) return save_one(result_path(command, result), result, command.append_result);
  std::set<std::string> written;  // equal rates in one second have one name
  for (const Json& one : *results) {
    const std::string path = result_path(command, one);
    CHORUS_TRY_VOID(save_one(path, one, command.append_result || written.contains(path)));
    written.insert(path);
  }
  return {};
}

Result<int> run(ServeBenchCommand& command) {
  CHORUS_TRY_VOID(complete(&command));
  std::vector<std::string> engine_words;
  keep_engine_words(&command, &engine_words);
  CHORUS_TRY_VOID(prepare_saving(command));
  const auto measure = [&](const BenchHooks& hooks) -> Result<BenchResult> {
    CHORUS_TRY(const ChosenServer server, ChosenServer::open(command.server, interrupted));
    return measure_serve(command.what, server.endpoint(), hooks);
  };
  return report(command, measure, [&command](const Json& result) { return save(command, result); });
}

}  // namespace

std::function<Result<int>()> declare_bench_serve(Options& options) {
  auto command = std::make_shared<ServeBenchCommand>();
  declare_dataset(options, &command->what.dataset, command.get());
  declare_traffic(options, command.get());
  declare_body(options, command.get());
  declare_result(options, command.get());
  declare_server(options, command.get());
  command->server.declare(options, "bench serve");
  return [command] { return run(*command); };
}

}  // namespace chorus
