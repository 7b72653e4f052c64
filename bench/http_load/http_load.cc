// http_load: N clients that each keep one request under way at a server of OpenAI's API, on one thread. One JSON object
// on stdout: what was answered, refused and failed in the measured time, and how long it took.
//
//   http_load --port 8000 --clients 64 --seconds 20 --max-tokens 128
//   http_load --port 8000 --clients 10000 --hold            one request a client, held until all have ended
//   --host 127.0.0.1 --path /v1/chat/completions --model NAME --prompt TEXT --whole (no stream) --warm-up-seconds 3
//   --connects-per-ms 8
//
// A refused client (429, 503) waits --retry-ms before it asks again.
#include <sys/epoll.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/descriptor_limit.h"
#include "load_stream.h"

namespace chorus::http_load {
namespace {

constexpr Nanoseconds millisecond = 1'000'000;

struct LoadOptions {
  std::string host = "127.0.0.1", model, prompt = "Once upon a time", path = "/v1/completions";
  int port = 8000, clients = 64, max_tokens = 128, retry_ms = 1000, connects_per_ms = 8;
  double seconds = 20, warm_up_seconds = 3;
  bool whole = false, hold = false;
};

std::string request_of(const LoadOptions& options) {
  nlohmann::ordered_json body = {
      {"prompt", options.prompt}, {"max_tokens", options.max_tokens}, {"temperature", 0}, {"ignore_eos", true}};
  if (!options.model.empty()) body["model"] = options.model;
  if (options.path.find("chat") != options.path.npos) {
    body.erase("prompt");
    body["messages"] = {{{"role", "user"}, {"content", options.prompt}}};
  }
  if (!options.whole) {
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
  }
  const std::string text = body.dump();
  return "POST " + options.path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(text.size()) + "\r\n\r\n" + text;
}

double percentile(std::vector<float>& values, double part) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

nlohmann::ordered_json spread_ms(std::vector<float>& values) {
  nlohmann::ordered_json spread;
  for (const auto& [name, part] : {std::pair{"p50", .5}, {"p90", .9}, {"p99", .99}, {"max", 1.}}) {
    spread[name] = std::round(percentile(values, part) * 1e6) / 1e3;
  }
  return spread;
}

class Load {
 public:
  Load(const LoadOptions& options, const tcp::Address& server)
      : options_(options), server_(server), request_(request_of(options)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (int i = 0; i < options.clients; ++i) {
      streams_.push_back(std::make_unique<LoadStream>(server_, request_, &tally_));
      to_begin_.push_back({0, streams_.back().get()});
    }
  }

  nlohmann::ordered_json run() {
    const Nanoseconds start = monotonic_now();
    const Nanoseconds from = start + static_cast<Nanoseconds>(options_.warm_up_seconds * 1e9);
    const Nanoseconds until = from + static_cast<Nanoseconds>(options_.seconds * 1e9);
    Tally before;
    tally_.records = options_.hold;
    while (!is_over(until)) {
      const Nanoseconds now = monotonic_now();
      if (!options_.hold && !tally_.records && now >= from) {
        tally_.records = true;
        before.requests = tally_.requests, before.tokens = tally_.tokens, before.events = tally_.events;
        before.refused = tally_.refused;
        measured_from_ = now;
      }
      begin_some(now);
      turn();
    }
    if (options_.hold) measured_from_ = start;
    return report(before, static_cast<double>(monotonic_now() - measured_from_) * 1e-9);
  }

 private:
  struct Begin {
    Nanoseconds at;
    LoadStream* stream;
  };

  bool is_over(Nanoseconds until) const {
    if (!options_.hold) return monotonic_now() >= until;
    return to_begin_.empty() && open_ == 0;
  }

  // Not all in one moment: a listening socket's queue has a bound.
  void begin_some(Nanoseconds now) {
    if (now - begun_at_ < millisecond) return;
    begun_at_ = now;
    for (int i = 0; i < options_.connects_per_ms && !to_begin_.empty() && to_begin_.front().at <= now; ++i) {
      LoadStream* const stream = to_begin_.front().stream;
      to_begin_.pop_front();
      if (stream->paused()) {
        if (!stream->resume(now)) closed(stream);
        continue;
      }
      if (!stream->begin(now)) continue;
      epoll_event event{EPOLLIN | EPOLLOUT | EPOLLET, {.ptr = stream}};
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stream->fd(), &event);
      if (options_.hold) stream->stop();
      ++open_;
    }
  }

  void turn() {
    epoll_event events[256];
    const int ready = ::epoll_wait(epoll_.get(), events, std::size(events), 1);
    for (int i = 0; i < ready; ++i) {
      auto* const stream = static_cast<LoadStream*>(events[i].data.ptr);
      if (!serve(stream)) closed(stream);
    }
  }

  // Until the socket has no more: it tells of what is new alone.
  bool serve(LoadStream* stream) {
    if (stream->wants_to_write() && !stream->write()) return false;
    const Nanoseconds now = monotonic_now();
    if (!stream->read(buffer_.data(), buffer_.size(), now)) return false;
    if (options_.hold && stream->idle()) return false;
    if (stream->paused()) to_begin_.push_back({now + options_.retry_ms * millisecond, stream});
    return !stream->wants_to_write() || stream->write();
  }

  void closed(LoadStream* stream) {
    --open_;
    stream->close();
    if (!options_.hold) to_begin_.push_back({monotonic_now() + options_.retry_ms * millisecond, stream});
  }

  nlohmann::ordered_json report(const Tally& before, double elapsed_s) {
    const auto per_second = [elapsed_s](std::uint64_t count) {
      return std::round(static_cast<double>(count) / elapsed_s * 10) / 10;
    };
    nlohmann::ordered_json report = {{"clients", options_.clients},
                                     {"elapsed_s", elapsed_s},
                                     {"requests", tally_.requests - before.requests},
                                     {"refused", tally_.refused - before.refused},
                                     {"failed", tally_.failed},
                                     {"first_failure", tally_.first_failure},
                                     {"requests_per_second", per_second(tally_.requests - before.requests)},
                                     {"tokens_per_second", per_second(tally_.tokens - before.tokens)},
                                     {"events_per_second", per_second(tally_.events - before.events)}};
    report["first_token_ms"] = spread_ms(tally_.first_token_s);
    report["between_tokens_ms"] = spread_ms(tally_.between_tokens_s);
    report["request_ms"] = spread_ms(tally_.request_s);
    report["refusal_ms"] = spread_ms(tally_.refusal_s);
    return report;
  }

  LoadOptions options_;
  tcp::Address server_;
  std::string request_;
  UniqueFd epoll_;
  Tally tally_;
  std::vector<std::unique_ptr<LoadStream>> streams_;
  std::deque<Begin> to_begin_;  // in the order of their times
  std::size_t open_ = 0;
  Nanoseconds begun_at_ = 0, measured_from_ = 0;
  std::vector<char> buffer_ = std::vector<char>(std::size_t{1} << 20);
};

// "--NAME VALUE" pairs and flags. False: what that was not is told.
bool parse(int argc, char** argv, LoadOptions* options) {
  const std::map<std::string_view, std::string*> texts = {{"--host", &options->host},
                                                          {"--path", &options->path},
                                                          {"--model", &options->model},
                                                          {"--prompt", &options->prompt}};
  const std::map<std::string_view, int*> numbers = {{"--port", &options->port},
                                                    {"--clients", &options->clients},
                                                    {"--max-tokens", &options->max_tokens},
                                                    {"--retry-ms", &options->retry_ms},
                                                    {"--connects-per-ms", &options->connects_per_ms}};
  const std::map<std::string_view, double*> times = {{"--seconds", &options->seconds},
                                                     {"--warm-up-seconds", &options->warm_up_seconds}};
  const std::map<std::string_view, bool*> flags = {{"--whole", &options->whole}, {"--hold", &options->hold}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (const auto flag = flags.find(name); flag != flags.end()) {
      *flag->second = true;
      continue;
    }
    const char* const value = i + 1 < argc ? argv[++i] : nullptr;
    if (const auto text = texts.find(name); text != texts.end() && value != nullptr) {
      *text->second = value;
    } else if (const auto number = numbers.find(name); number != numbers.end() && value != nullptr) {
      *number->second = std::atoi(value);
    } else if (const auto time = times.find(name); time != times.end() && value != nullptr) {
      *time->second = std::atof(value);
    } else {
      std::fprintf(stderr, "http_load: %s is no option, or lacks its value: see the head of http_load.cc\n", argv[i]);
      return false;
    }
  }
  return true;
}

int run(int argc, char** argv) {
  LoadOptions options;
  if (!parse(argc, argv, &options)) return 2;
  raise_descriptor_limit();
  const auto addresses = tcp::resolve(options.host, options.port);
  if (!addresses.ok()) {
    std::fprintf(stderr, "http_load: %s\n", addresses.error().message.c_str());
    return 2;
  }
  std::printf("%s\n", Load(options, addresses->front()).run().dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace chorus::http_load

int main(int argc, char** argv) {
  return chorus::http_load::run(argc, argv);
}
