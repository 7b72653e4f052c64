#include "server/api.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <utility>

#include "base/ascii.h"
#include "base/siphash.h"
#include "server/metrics/metric_text.h"
#include "server/openai/catalog.h"
#include "server/openai/openapi.h"
#include "server/page.h"

namespace chorus {
namespace {

constexpr std::string_view one_model_path = "/v1/models/";
constexpr const char* metrics_path = "/metrics";
// What a shorter body says is known in well under a millisecond.
constexpr std::size_t read_at_once_bytes_max = 8192;
constexpr int reader_threads = 2;

HttpResponse json_response(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  return response;
}

HttpResponse refusal_of(const ApiError& error) {
  return error_response(error.status, error.message, error.param);
}

std::string shown(const std::string& text) {
  constexpr std::size_t bytes_max = 100;
  return text.size() <= bytes_max ? text : text.substr(0, bytes_max) + "...";
}

// What a page of another origin may send without asking has another type; so has what curl -d sends by itself.
bool is_json(const HttpRequest& request) {
  const auto type = request.field("content-type");
  if (!type) return false;
  std::string name(type->substr(0, type->find(';')));
  while (name.ends_with(' ')) name.pop_back();
  return ascii_lower(std::move(name)) == "application/json";
}

// The client's id goes into a header and into JSON: visible ASCII.
std::optional<std::string> client_id(const HttpRequest& request) {
  constexpr std::size_t bytes_max = 128;
  const auto id = request.field("x-request-id");
  if (!id || id->empty() || id->size() > bytes_max || !std::ranges::all_of(*id, is_visible_ascii)) return std::nullopt;
  return std::string(*id);
}

}  // namespace

Api::Api(ApiConfig config, ApiHost host, TextEngine& engine, std::shared_ptr<const Tokenizer> tokenizer,
         const MetricStore* metrics, MetricSlot slot)
    : config_(std::move(config)),
      host_(std::move(host)),
      engine_(engine),
      tokenizer_(std::move(tokenizer)),
      started_s_(std::time(nullptr)),
      slot_(std::move(slot)),
      admission_(config_.admission, metrics, slot_),
      id_key_(std::random_device{}() * std::uint64_t{0x100000001} + std::random_device{}()) {}

std::span<const Api::Route> Api::routes() {
  static constexpr Route table[] = {
      {"GET", "/v1/models", false, false, &Api::models},
      {"POST", "/v1/completions", false, true, &Api::completions},
      {"POST", "/v1/chat/completions", false, true, &Api::chat_completions},
      {"POST", "/tokenize", false, true, &Api::tokenize},
      {"POST", "/detokenize", false, true, &Api::detokenize},
      {"POST", "/abort_requests", false, true, &Api::abort_requests},
      {"POST", "/reset_prefix_cache", false, false, &Api::reset_prefix_cache},
      {"GET", "/health", true, false, &Api::health},
      {"GET", "/ping", true, false, &Api::health},
      {"POST", "/ping", true, false, &Api::health},
      {"GET", "/ready", false, false, &Api::ready},
      {"GET", "/version", false, false, &Api::version},
      {"GET", "/load", false, false, &Api::load},
      {"GET", metrics_path, false, false, &Api::metrics},
      {"GET", "/", true, false, &Api::page},
      {"GET", "/page.css", true, false, &Api::page},
      {"GET", "/page.js", true, false, &Api::page},
      {"GET", "/page.svg", true, false, &Api::page},
      {"GET", "/openapi.json", false, false, &Api::openapi},
  };
  return table;
}

std::vector<std::string> Api::route_names() {
  std::vector<std::string> names;
  for (const Route& route : routes()) names.push_back(fmt::format("{} {}", route.method, route.path));
  return names;
}

const Api::Route* Api::find_route(const HttpRequest& request) {
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  const std::string_view path =
      request.path.starts_with(one_model_path) ? "/v1/models" : std::string_view(request.path);
  const auto found =
      std::ranges::find_if(routes(), [&](const Route& route) { return route.method == method && route.path == path; });
  return found == routes().end() ? nullptr : &*found;
}

std::optional<HttpResponse> Api::admit(const HttpRequest& head) const {
  const Route* const route = find_route(head);
  const bool open =
      route != nullptr && (route->open || (config_.open_metrics && route->path == std::string_view(metrics_path)));
  if (auto refusal = refuse_access(config_.access, head, open)) return refusal;
  if (route == nullptr) {
    for (const Route& other : routes()) {
      if (other.path != head.path) continue;
      HttpResponse refusal = error_response(405, fmt::format("{} is for {}", other.path, other.method));
      refusal.fields.emplace_back("allow", other.method);
      return refusal;
    }
    return error_response(404, fmt::format("there is no {}", shown(head.path)));
  }
  const auto encoding = head.field("content-encoding");
  if (encoding && *encoding != "identity") return error_response(415, "send the body without a Content-Encoding");
  if (route->has_json && !is_json(head))
    return error_response(415, "the body is to be JSON: Content-Type: application/json");
  return std::nullopt;
}

HttpApplication Api::application() {
  return {[this](const HttpRequest& head) { return admit(head); },
          [this](const std::shared_ptr<Exchange>& exchange) { handle(exchange); },
          [this](const HttpRequest& request, int status, Nanoseconds duration) {
            count_answer(request, status, duration);
          }};
}

void Api::handle(const std::shared_ptr<Exchange>& exchange) {
  (this->*find_route(exchange->request())->handler)(exchange);
}

Api::Continuation Api::read_json(const std::shared_ptr<Exchange>& exchange, const std::string& text,
                                 const BodyReader& read) const {
  auto body = parse_json(text, {config_.body_bytes_max, config_.json_depth_max});
  if (!body.ok())
    return [exchange, message = body.error().message] { exchange->respond(error_response(400, message)); };
  if (!body->is_object()) {
    return [exchange] { exchange->respond(error_response(400, "the body is to be a JSON object")); };
  }
  return read(exchange, *body);
}

void Api::read_body(const std::shared_ptr<Exchange>& exchange, BodyReader read) {
  auto text = std::make_shared<std::string>(exchange->take_body());
  const std::size_t bytes = text->size();
  if (bytes <= read_at_once_bytes_max) return read_json(exchange, *text, read)();
  if (bytes_beside_ + bytes > config_.bytes_beside_max) {
    HttpResponse refusal = error_response(503, "too many long bodies wait to be read: try again soon");
    refusal.fields.emplace_back("retry-after", "1");
    return exchange->respond(std::move(refusal));
  }
  bytes_beside_ += bytes;
  if (!readers_) readers_.emplace(reader_threads);
  // Moved on: the exchange ends on the server's thread.
  readers_->add([this, exchange = exchange, text, bytes, read = std::move(read)]() mutable {
    Continuation next = read_json(exchange, *text, read);
    host_.later([this, exchange = std::move(exchange), bytes, next = std::move(next)] {
      bytes_beside_ -= bytes;
      if (exchange->is_open()) next();
    });
  });
}

// Before its body is looked at: so a refusal costs next to nothing.
bool Api::refuses_more(Exchange& exchange) const {
  const auto why = admission_.refuse();
  if (!why) return false;
  HttpResponse refusal = error_response(429, *why);
  refusal.fields.emplace_back("retry-after", "1");
  exchange.respond(std::move(refusal));
  return true;
}

void Api::count_answer(const HttpRequest& request, int status, Nanoseconds duration) const {
  const std::size_t durations = http_duration_value(request.method, request.path);
  if (durations >= row_of(Metric::http_duration).values.size()) return;
  slot_.add(Metric::http_requests, 1, {0, http_request_value(request.method, request.path, status)});
  slot_.observe(Metric::http_duration, static_cast<double>(duration) * 1e-9, {0, durations});
}

void Api::page(const std::shared_ptr<Exchange>& exchange) {
  exchange->respond(page_response(exchange->request().path));
}

void Api::completions(const std::shared_ptr<Exchange>& exchange) {
  read_generation(exchange, &parse_completion);
}

void Api::chat_completions(const std::shared_ptr<Exchange>& exchange) {
  read_generation(exchange, &parse_chat);
}

void Api::read_generation(const std::shared_ptr<Exchange>& exchange, GenerationParser parse) {
  if (refuses_more(*exchange)) return;
  read_body(exchange, [this, parse](const std::shared_ptr<Exchange>& of, const Json& body) -> Continuation {
    const auto parsed = std::make_shared<Parsed<GenerationRequest>>(
        parse(body, config_.model, of->request().field("x-data-parallel-rank")));
    return [this, of, parsed] { generate(of, std::move(*parsed)); };
  });
}

void Api::generate(const std::shared_ptr<Exchange>& exchange, Parsed<GenerationRequest> parsed) {
  if (const ApiError* const error = std::get_if<ApiError>(&parsed)) return exchange->respond(refusal_of(*error));
  if (draining_) return exchange->respond(error_response(503, "this server is shutting down"));
  auto& request = std::get<GenerationRequest>(parsed);
  if (const auto rank = request.inputs.front().dp_rank) {
    const ReplicaCounts there = host_.replicas();
    if (*rank < there.first_rank || *rank >= there.end_rank) {
      const Error error = no_such_rank(*rank, there.first_rank, there.end_rank);
      return exchange->respond(error_response(400, error.message, "X-data-parallel-rank"));
    }
  }
  slot_.add(Metric::unknown_fields, request.unknown_fields);
  request.prompt_tokens_details = config_.prompt_tokens_details;
  const std::optional<std::string> given_id = client_id(exchange->request());
  const std::string id = given_id.value_or(request.request_id.value_or(new_id()));
  std::vector<std::pair<std::string, std::string>> fields;
  if (given_id) fields.emplace_back("x-request-id", *given_id);
  const ToolCallFormat* const calls = request.output.tool_calls;
  AnswerHead head{answer_id(request.kind, id),
                  std::time(nullptr),
                  config_.model.names.front(),
                  {new_id(), calls != nullptr && calls->short_ids}};
  // The job keeps what it shows; the prompts go to the engine.
  std::vector<GenerationInput> inputs = std::move(request.inputs);
  request.inputs.resize(inputs.size());
  request.inputs.front().options = inputs.front().options;
  request.inputs.front().return_prompt = inputs.front().return_prompt;
  const TokenLabel token_label(*tokenizer_, request.return_tokens_as_token_ids);
  const auto job =
      std::make_shared<GenerationJob>(exchange, std::move(request), std::move(head), token_label, std::move(fields));
  jobs_.emplace(job.get(), job);
  add_prompts(job, *exchange, std::move(inputs));
}

void Api::add_prompts(const std::shared_ptr<GenerationJob>& job, Exchange& exchange,
                      std::vector<GenerationInput> inputs) {
  const Nanoseconds now = monotonic_now();
  for (std::size_t prompt = 0; prompt < inputs.size(); ++prompt) {
    const std::uint64_t tokens = Admission::tokens_of(inputs[prompt]);
    PromptOf of{job, prompt, RequestMeter(slot_, inputs[prompt].options.params, now), tokens};
    const auto id = engine_.add(std::move(inputs[prompt]));
    if (!id.ok()) {
      slot_.add(Metric::admission_rejections, 1, {0, metric_value::no_room});
      job->fail(id.error().code, id.error().message);
      return abort(job);
    }
    job->ids.push_back(*id);
    prompts_.emplace(*id, std::move(of));
    admission_.enter(tokens);
  }
  const std::weak_ptr<GenerationJob> weak = job;
  exchange.on_gone([this, weak] {
    if (const auto present = weak.lock()) abort(present);
  });
  exchange.on_room([this, weak] {
    const auto present = weak.lock();
    if (!present) return;
    present->tell();
    if (present->is_told()) forget(present);
  });
  host_.wake();
}

void Api::abort(const std::shared_ptr<GenerationJob>& job) {
  for (const TextRequestId id : job->ids) engine_.abort(id);
  forget(job);
  host_.wake();
}

void Api::leave_queue(const PromptOf& prompt) {
  if (!prompt.meter.has_token()) admission_.leave(prompt.queued_tokens);
}

void Api::forget(const std::shared_ptr<GenerationJob>& job) {
  for (const TextRequestId id : job->ids) {
    const auto found = prompts_.find(id);
    if (found == prompts_.end()) continue;
    leave_queue(found->second);
    found->second.meter.end_aborted();  // unless it has ended
    prompts_.erase(found);
  }
  jobs_.erase(job.get());
}

void Api::take(std::vector<TextDelta>* deltas) {
  answer_resets();
  std::vector<std::shared_ptr<GenerationJob>> touched;
  const Nanoseconds now = monotonic_now();
  for (TextDelta& delta : *deltas) {
    const auto found = prompts_.find(delta.request);
    if (found == prompts_.end()) continue;  // aborted since
    PromptOf& of = found->second;
    const bool waited = !of.meter.has_token();
    of.meter.take(delta, now);
    if (waited && of.meter.has_token()) admission_.leave(of.queued_tokens);
    touched.push_back(of.job);
    if (delta.error) {
      const std::shared_ptr<GenerationJob> job = of.job;
      job->fail(delta.error_code, *delta.error);
      abort(job);
    } else {
      of.job->take(of.prompt, std::move(delta));
    }
  }
  deltas->clear();
  std::ranges::sort(touched);
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  for (const auto& job : touched) {
    if (!jobs_.contains(job.get())) continue;
    job->tell();
    if (job->is_told()) forget(job);
  }
}

void Api::fail(const std::string& message) {
  while (!jobs_.empty()) {
    const std::shared_ptr<GenerationJob> job = jobs_.begin()->second;
    job->fail(ErrorCode::internal, message);
    forget(job);
  }
  for (const auto& [number, exchange] : std::exchange(resets_, {})) {
    if (exchange->is_open()) exchange->respond(error_response(500, message));
  }
}

std::string Api::new_id() {
  ByteHash hash({id_key_, id_key_ + 1});
  ++ids_;
  hash.add({reinterpret_cast<const char*>(&ids_), sizeof ids_});
  const Hash128 value = hash.value();
  return fmt::format("{:016x}{:016x}", value.high, value.low);
}

void Api::models(const std::shared_ptr<Exchange>& exchange) {
  const std::string& path = exchange->request().path;
  if (!path.starts_with(one_model_path))
    return exchange->respond(json_response(models_json(config_.model, started_s_)));
  const std::string name = path.substr(one_model_path.size());
  if (std::ranges::find(config_.model.names, name) == config_.model.names.end()) {
    return exchange->respond(error_response(404, fmt::format("there is no model {}", shown(name)), "model"));
  }
  exchange->respond(json_response(model_json(config_.model, name, started_s_)));
}

void Api::tokenize(const std::shared_ptr<Exchange>& exchange) {
  read_body(exchange, [this](const std::shared_ptr<Exchange>& of, const Json& body) -> Continuation {
    return [of, response = tokenized(body)] { of->respond(response); };
  });
}

HttpResponse Api::tokenized(const Json& body) const {
  const auto parsed = parse_tokenize(body, config_.model);
  if (const ApiError* const error = std::get_if<ApiError>(&parsed)) return refusal_of(*error);
  const auto& request = std::get<TokenizeRequest>(parsed);
  const auto tokens = tokenizer_->encode(request.text, request.add_special_tokens);
  if (!tokens.ok()) return error_response(400, tokens.error().message);
  return json_response(tokenize_json(*tokens, request, *tokenizer_, config_.model.max_model_len));
}

void Api::detokenize(const std::shared_ptr<Exchange>& exchange) {
  read_body(exchange, [this](const std::shared_ptr<Exchange>& of, const Json& body) -> Continuation {
    return [of, response = detokenized(body)] { of->respond(response); };
  });
}

HttpResponse Api::detokenized(const Json& body) const {
  const auto parsed = parse_detokenize(body, config_.model);
  if (const ApiError* const error = std::get_if<ApiError>(&parsed)) return refusal_of(*error);
  const auto text = tokenizer_->decode(std::get<std::vector<TokenId>>(parsed), false);
  if (!text.ok()) return error_response(400, text.error().message, "tokens");
  return json_response(member_json("prompt", *text));
}

void Api::abort_requests(const std::shared_ptr<Exchange>& exchange) {
  read_body(exchange, [this](const std::shared_ptr<Exchange>& of, const Json& body) -> Continuation {
    return [this, of, parsed = parse_abort(body)] {
      if (const ApiError* const error = std::get_if<ApiError>(&parsed)) return of->respond(refusal_of(*error));
      const std::uint64_t aborted = end_early(std::get<std::vector<std::string>>(parsed));
      of->respond(json_response(member_json("aborted", aborted)));
    };
  });
}

// Their clients get what has come until now. How many there were.
std::uint64_t Api::end_early(const std::vector<std::string>& ids) {
  std::vector<std::shared_ptr<GenerationJob>> named;
  for (const auto& [key, job] : jobs_) {
    const std::string_view id = job->id(), without_kind = id.substr(id.find('-') + 1);
    if (std::ranges::any_of(ids, [&](const std::string& one) { return one == id || one == without_kind; })) {
      named.push_back(job);
    }
  }
  for (const auto& job : named) {
    for (const TextRequestId id : job->ids) engine_.abort(id);
    job->end_early();
    job->tell();
    if (job->is_told()) forget(job);
  }
  host_.wake();
  return named.size();
}

// As vLLM's: 200 without a body. Told when every replica has done it, so that whoever has the answer finds none of them
// with anything, whichever front end he asks next.
void Api::reset_prefix_cache(const std::shared_ptr<Exchange>& exchange) {
  resets_.emplace_back(engine_.reset_prefix_caches(), exchange);
  exchange->on_gone([this, asked = exchange.get()] {
    std::erase_if(resets_, [asked](const auto& reset) { return reset.second.get() == asked; });
  });
  host_.wake();
}

void Api::answer_resets() {
  std::erase_if(resets_, [this](const auto& reset) {
    if (!engine_.prefix_caches_are_reset(reset.first)) return false;
    HttpResponse response;
    response.content_type.clear();
    if (reset.second->is_open()) reset.second->respond(std::move(response));
    return true;
  });
}

void Api::health(const std::shared_ptr<Exchange>& exchange) {
  HttpResponse response;
  response.content_type.clear();
  response.status = host_.replicas().alive > 0 ? 200 : 503;
  exchange->respond(std::move(response));
}

void Api::ready(const std::shared_ptr<Exchange>& exchange) {
  const int replicas = host_.replicas().ready;
  if (draining_) return exchange->respond(error_response(503, "this server is shutting down"));
  if (replicas == 0) return exchange->respond(error_response(503, "no replica is ready"));
  exchange->respond(json_response(member_json("ready_replicas", static_cast<std::uint64_t>(replicas))));
}

void Api::version(const std::shared_ptr<Exchange>& exchange) {
  std::string text;
  JsonWriter(&text)
      .begin_object()
      .key("version")
      .value(config_.version)
      .key("profile")
      .value(config_.profile)
      .end_object();
  exchange->respond(json_response(std::move(text)));
}

void Api::openapi(const std::shared_ptr<Exchange>& exchange) {
  exchange->respond(json_response(openapi_json(config_.version)));
}

void Api::load(const std::shared_ptr<Exchange>& exchange) {
  exchange->respond(json_response(member_json("server_load", std::uint64_t{jobs_.size()})));
}

void Api::metrics(const std::shared_ptr<Exchange>& exchange) {
  HttpResponse response;
  response.content_type = metrics_content_type;
  response.body = host_.metrics_text();
  exchange->respond(std::move(response));
}

}  // namespace chorus
