#include "server/front_end.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <random>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/philox.h"
#include "frontend/text_engine.h"
#include "server/api.h"
#include "server/http/server.h"
#include "server/metrics/engine_meter.h"
#include "server/metrics/metric_text.h"

namespace chorus {
namespace {

namespace asio = boost::asio;

constexpr int look_interval_ms = 100;   // how often `stop` is asked
constexpr int told_timeout_ms = 1'000;  // for the clients to hear that the fleet has failed

// A request that brings no seed gets one that nobody can foretell, another one each time.
SeedRule random_seeds() {
  std::random_device device;
  const std::uint64_t first = (std::uint64_t{device()} << 32) | device();
  return
      [random = std::mt19937_64(first)](std::span<const TokenId>, const SamplingParams&) mutable { return random(); };
}

bool has_special(std::span<const std::string_view> markers, const Tokenizer& tokenizer) {
  return std::ranges::any_of(markers, [&](std::string_view marker) {
    const auto token = tokenizer.token_to_id(marker);
    return token && tokenizer.is_special(*token);
  });
}

void set_formats(const OutputFormats& formats, const Tokenizer& tokenizer, ServedModel* model) {
  model->tool_calls = find_tool_call_format(formats.tool_calls);
  model->reasoning = reasoning_style(formats.reasoning);
  constexpr std::string_view think_markers[] = {think_begin, think_end};
  model->think_markers_are_special = has_special(think_markers, tokenizer);
  if (model->tool_calls == nullptr) return;
  model->tool_markers_are_special = has_special(model->tool_calls->markers, tokenizer);
}

ApiConfig api_config(const FrontEndConfig& config, const ChatFormat& chat, const Tokenizer& tokenizer,
                     const Fleet& fleet) {
  const EngineConfig& engine = config.engine;
  const ModelConfig& model = config.model;
  const bool own_defaults = engine.generation_config != "chorus";
  ApiConfig api;
  api.model.names = config.model_names;
  api.model.defaults = default_generation_options(model, own_defaults);
  api.model.chat_fills_context = !own_defaults || !model.default_max_tokens;
  api.model.chat = &chat;
  api.model.max_model_len = engine.max_model_len > 0 ? engine.max_model_len : model.max_position_embeddings;
  set_formats(config.formats, tokenizer, &api.model);
  api.model.by_priority = engine.scheduling_policy == SchedulingPolicy::priority;
  api.access = config.access;
  api.version = config.version;
  api.profile = fleet.times().profile;
  api.json_depth_max = config.limits.json_depth_max;
  api.body_bytes_max = config.limits.body_bytes_max;
  api.open_metrics = config.options.open_metrics;
  api.admission = config.options.admission;
  api.prompt_tokens_details = config.options.prompt_tokens_details;
  return api;
}

MetricTextConfig metric_text_config(const FrontEndConfig& config) {
  const EngineConfig& engine = config.engine;
  return {config.model_names.front(),
          {{"block_size", std::to_string(engine.block_size)},
           {"cache_dtype", name_of(engine.kv_cache_dtype)},
           {"enable_prefix_caching", engine.enable_prefix_caching ? "True" : "False"}}};
}

class FrontEndLoop final : public FrontEnd {
 public:
  FrontEndLoop(const FrontEndConfig& config, ChatFormat chat, const std::shared_ptr<const Tokenizer>& tokenizer,
               TlsContext tls, Fleet& fleet, const MetricStore& metrics, int index)
      : fleet_(fleet),
        metrics_(metrics),
        slot_(metrics.front_end(index)),
        metric_text_(metric_text_config(config)),
        log_stats_(config.log_stats),
        shutdown_timeout_s_(config.shutdown_timeout_s),
        chat_(std::move(chat)),
        engine_(fleet, tokenizer, config.engine, config.model, random_seeds()),
        api_(api_config(config, chat_, *tokenizer, fleet), api_host(), engine_, tokenizer, &metrics, slot_),
        http_(loop_, api_.application(), config.limits, std::move(tls)),
        fleet_waits_(loop_),
        timer_(loop_) {
    slot_.clear_gauges();
    if (config.has_host) replicas_.emplace(metrics.parent(), config.engine.parallel.fleet_end());
  }
  ~FrontEndLoop() override {
    if (fleet_waits_.is_open()) fleet_waits_.release();
  }

  Result<void> listen_on(UniqueFd listener) override { return http_.listen_on(std::move(listener)); }
  Result<void> run(const std::function<bool()>& stop) override;

 private:
  ApiHost api_host() {
    return {[this] { return replicas(); }, [this] { turn_soon(); },
            [this](std::function<void()> work) { asio::post(loop_, std::move(work)); },
            [this] { return metrics_text(metrics_, metric_text_); }};
  }
  ReplicaCounts replicas() const {
    ReplicaCounts counts;
    const std::vector<ReplicaStatus> all = fleet_.replicas();
    if (!all.empty()) counts.first_rank = all.front().dp_rank;
    for (const ReplicaStatus& replica : all) {
      counts.end_rank = replica.dp_rank + 1;
      counts.alive += replica.alive ? 1 : 0;
      counts.ready += replica.condition == ReplicaCondition::ready ? 1 : 0;
    }
    return counts;
  }

  void turn_soon();
  void turn();
  void wait();
  void look_at_the_end();
  void count();
  void fail(const Error& error);

  asio::io_context loop_{1};
  Fleet& fleet_;
  const MetricStore& metrics_;
  MetricSlot slot_;
  MetricTextConfig metric_text_;
  std::optional<EngineMeter> replicas_;  // where the host is here
  bool log_stats_;
  int shutdown_timeout_s_;
  ChatFormat chat_;
  TextEngine engine_;
  Api api_;
  HttpServer http_;
  asio::posix::stream_descriptor fleet_waits_;  // on the fleet's descriptor, which it does not own
  asio::steady_timer timer_;
  std::vector<TextDelta> deltas_;
  const std::function<bool()>* stop_ = nullptr;
  std::optional<Nanoseconds> end_by_;  // it was told to end
  std::optional<Error> failure_;
  DispatcherCounters counted_;
  bool turn_is_due_ = false, waits_for_fleet_ = false;
};

Result<void> FrontEndLoop::run(const std::function<bool()>& stop) {
  stop_ = &stop;
  turn_soon();
  loop_.run();
  if (failure_) return *failure_;
  return {};
}

// What is asked for meanwhile goes along.
void FrontEndLoop::turn_soon() {
  if (std::exchange(turn_is_due_, true)) return;
  asio::post(loop_, [this] { turn(); });
}

void FrontEndLoop::turn() {
  turn_is_due_ = false;
  if (!failure_) {
    const auto polled = engine_.poll(0, &deltas_);
    api_.take(&deltas_);
    if (!polled.ok()) fail(polled.error());
  }
  count();
  look_at_the_end();
  if (!loop_.stopped()) wait();
}

void FrontEndLoop::count() {
  const DispatcherCounters now = fleet_.counters();
  slot_.add(Metric::requests_moved, now.requests_moved - counted_.requests_moved);
  slot_.add(Metric::tokens_replayed, now.tokens_replayed - counted_.tokens_replayed);
  slot_.add(Metric::prefix_placements, now.prefix_placements - counted_.prefix_placements);
  slot_.add(Metric::prefix_placed_tokens, now.prefix_tokens - counted_.prefix_tokens);
  counted_ = now;
  slot_.set(Metric::http_connections, static_cast<double>(http_.connections()));
  if (!replicas_) return;
  replicas_->take(fleet_.replicas());
  if (!log_stats_) return;
  for (const std::string& line : replicas_->log_lines(monotonic_now())) log(LogLevel::info, "{}", line);
}

void FrontEndLoop::wait() {
  FleetWait wait{-1, look_interval_ms};
  if (!failure_) wait = engine_.wait();
  if (wait.descriptor >= 0 && !waits_for_fleet_) {
    if (!fleet_waits_.is_open()) fleet_waits_.assign(wait.descriptor);
    waits_for_fleet_ = true;
    fleet_waits_.async_wait(fleet_waits_.wait_read, [this](const boost::system::error_code& error) {
      waits_for_fleet_ = false;
      if (!error && !turn_is_due_) turn();
    });
  }
  timer_.expires_after(std::chrono::milliseconds(std::min(wait.timeout_ms, look_interval_ms)));
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error && !turn_is_due_) turn();
  });
}

void FrontEndLoop::look_at_the_end() {
  if (!end_by_ && (*stop_)()) {
    end_by_ = deadline_after(shutdown_timeout_s_ * 1'000);
    log(LogLevel::info, "shutting down: {} requests are under way", api_.generations());
    api_.drain();
    http_.drain();
  }
  if (!end_by_) return;
  const bool late = monotonic_now() > *end_by_;
  if (late && api_.generations() > 0) log(LogLevel::warning, "{} requests are cut off", api_.generations());
  if (late || (api_.generations() == 0 && http_.connections() == 0)) loop_.stop();
}

void FrontEndLoop::fail(const Error& error) {
  failure_ = error;
  api_.fail(error.message);
  api_.drain();
  http_.drain();
  end_by_ = deadline_after(told_timeout_ms);
}

}  // namespace

Result<std::unique_ptr<FrontEnd>> FrontEnd::make(const FrontEndConfig& config,
                                                 const std::shared_ptr<const Tokenizer>& tokenizer, Fleet& fleet,
                                                 const MetricStore& metrics, int index) {
  if (tokenizer == nullptr) {
    return fail(ErrorCode::not_found, "{}: no tokenizer.json, and a server speaks text", config.engine.model);
  }
  CHORUS_TRY(ChatFormat chat, ChatFormat::load(config.engine.model));
  TlsContext tls;
  if (config.tls.is_given()) {
    CHORUS_TRY(tls, load_tls(config.tls));
  }
  return std::unique_ptr<FrontEnd>(
      std::make_unique<FrontEndLoop>(config, std::move(chat), tokenizer, std::move(tls), fleet, metrics, index));
}

}  // namespace chorus
