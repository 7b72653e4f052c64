#include "frontend/text_engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "frontend/bad_words.h"
#include "frontend/encoder_pool.h"
#include "frontend/front_door.h"

namespace chorus {
namespace {

// A shorter prompt becomes tokens in well under a millisecond, at once and without another thread.
constexpr std::size_t encoded_at_once_bytes_max = 8192;
// How soon it is noticed that another thread has encoded a prompt: a wait for the fleet does not end for that.
constexpr int encoding_slice_ms = 1;
constexpr Nanoseconds millisecond = 1'000'000;

// A request that is not submitted yet. Another thread writes `prompt` and `refusal`, then `ready`; this one reads them
// after that.
struct Unsubmitted {
  TextRequestId id = 0;
  GenerationInput input;
  std::size_t bytes = 0;
  UnderstoodPrompt prompt;
  std::optional<Error> refusal;  // why it cannot run
  std::atomic<bool> ready = false;
};

struct Choice {
  std::optional<Detokenizer> detokenizer;
  std::uint32_t tokens = 0;
  bool done = false;
};

struct Submitted {
  TextRequestId id = 0;
  std::uint64_t tag = 0;
  std::vector<Choice> choices;
  std::size_t choices_left = 0;
  bool keeps_stop_token = false;  // in the text
  bool ignores_eos = false;
  std::uint64_t prompt_tokens = 0, output_tokens = 0;
};

std::size_t bytes_of(const GenerationInput& input) {
  return input.prompt.size() + (input.prompt_token_ids ? input.prompt_token_ids->size() * sizeof(TokenId) : 0);
}

// What does not change while the engine lives: also read by the encoder threads.
struct Context {
  std::shared_ptr<const Tokenizer> tokenizer;
  EngineConfig config;
  ModelConfig model;

  Result<std::vector<TokenId>> encode(GenerationInput* input) const;
  std::size_t length_max() const;
  void truncate(const GenerationOptions& options, std::vector<TokenId>* prompt) const;
  void fill_context(std::size_t prompt_tokens, GenerationOptions* options) const;
  Result<void> understand_options(GenerationOptions* options) const;
  Result<void> understand(Unsubmitted* request) const;
};

Result<std::vector<TokenId>> Context::encode(GenerationInput* input) const {
  if (input->prompt_token_ids) return std::move(*input->prompt_token_ids);
  if (tokenizer == nullptr) {
    return fail(ErrorCode::invalid_argument, "{}: no tokenizer.json; give \"prompt_token_ids\" instead of a text",
                config.model);
  }
  return tokenizer->encode(input->prompt, input->add_special_tokens);
}

std::size_t Context::length_max() const {
  return static_cast<std::size_t>(config.max_model_len > 0 ? config.max_model_len : model.max_position_embeddings);
}

// As vLLM's TokenizeParams: -1 leaves room for max_tokens, and for one token where the output fills the context.
void Context::truncate(const GenerationOptions& options, std::vector<TokenId>* prompt) const {
  if (options.truncate_prompt_tokens == 0) return;
  auto kept = static_cast<std::size_t>(std::max(options.truncate_prompt_tokens, 0));
  if (options.truncate_prompt_tokens < 0) {
    const std::size_t output = options.fills_context ? 1 : options.params.max_tokens;
    kept = length_max() > output ? length_max() - output : 1;
  }
  if (prompt->size() <= kept) return;
  if (!options.truncates_right) prompt->erase(prompt->begin(), prompt->end() - static_cast<std::ptrdiff_t>(kept));
  prompt->resize(kept);
}

// A prompt that leaves no room is refused later, by its length.
void Context::fill_context(std::size_t prompt_tokens, GenerationOptions* options) const {
  const std::size_t limit = length_max();
  if (!options->fills_context || prompt_tokens >= limit) return;
  options->params.max_tokens = static_cast<std::uint32_t>(limit - prompt_tokens);
}

// What they mean to an engine, which knows token ids alone.
Result<void> Context::understand_options(GenerationOptions* options) const {
  if (!options->params.logprob_token_ids.empty()) options->params.logprobs = 0;
  const bool has_texts = !options->stop.empty() || !options->bad_words.empty();
  if (tokenizer == nullptr && has_texts) {
    return fail(ErrorCode::invalid_argument, "{} need a tokenizer.json, which {} has not: use {}",
                options->stop.empty() ? "bad_words" : "stop strings", config.model,
                options->stop.empty() ? "logit_bias" : "stop_token_ids");
  }
  if (options->bad_words.empty()) return {};
  CHORUS_TRY(options->params.bad_words, bad_word_runs(options->bad_words, *tokenizer));
  return {};
}

// Everything whose cost grows with the prompt.
Result<void> Context::understand(Unsubmitted* request) const {
  GenerationInput& input = request->input;
  UnderstoodPrompt& prompt = request->prompt;
  if (input.error) return fail(ErrorCode::invalid_argument, "{}", *input.error);
  const bool came_as_ids = input.prompt_token_ids.has_value();
  CHORUS_TRY(prompt.token_ids, encode(&input));
  truncate(input.options, &prompt.token_ids);
  if (came_as_ids && input.return_prompt && input.prompt.empty() && tokenizer != nullptr) {
    if (auto text = tokenizer->decode(prompt.token_ids, false); text.ok()) input.prompt = std::move(*text);
  }
  fill_context(prompt.token_ids.size(), &input.options);
  CHORUS_TRY_VOID(check_prompt(prompt.token_ids, input.options.params, config, model));
  return understand_options(&input.options);
}

}  // namespace

struct TextEngine::State {
  State(Fleet& fleet, Context context, SeedRule seed_rule, const TextEngineLimits& limits)
      : fleet(fleet), context(std::move(context)), seed_rule(std::move(seed_rule)), limits(limits) {}

  Fleet& fleet;
  const Context context;
  SeedRule seed_rule;
  TextEngineLimits limits;
  TextRequestId last_id = 0;
  std::deque<std::shared_ptr<Unsubmitted>>
      unsubmitted;  // in the order of add(); shared with the thread that encodes it
  std::size_t unsubmitted_bytes = 0;
  std::unordered_map<RequestId, Submitted> submitted;
  std::unordered_map<TextRequestId, RequestId> fleet_ids;  // of what is in `submitted`
  std::uint64_t submitted_tokens = 0;                      // of its prompts
  std::vector<FleetEvent> events;
  std::optional<EncoderPool> encoders;  // after what its jobs read

  std::size_t requests() const { return unsubmitted.size() + submitted.size(); }
  bool may_submit() const { return submitted.empty() || submitted_tokens < limits.submitted_tokens_max; }
  bool is_encoding() const {
    return !unsubmitted.empty() && !unsubmitted.front()->ready.load(std::memory_order_acquire);
  }
  void submit_ready(std::vector<TextDelta>* deltas);
  void submit(Unsubmitted& request, std::vector<TextDelta>* deltas);
  void end(std::unordered_map<RequestId, Submitted>::iterator at);
  void forget(const std::deque<std::shared_ptr<Unsubmitted>>::iterator& at);
  void take(FleetEvent& fleet_event, std::vector<TextDelta>* deltas);
  void take_token(TokenEvent& event, Submitted& request, Choice& choice, TextDelta* delta);
};

void TextEngine::State::forget(const std::deque<std::shared_ptr<Unsubmitted>>::iterator& at) {
  unsubmitted_bytes -= (*at)->bytes;
  unsubmitted.erase(at);
}

void TextEngine::State::submit_ready(std::vector<TextDelta>* deltas) {
  while (!unsubmitted.empty() && !is_encoding() && may_submit()) {
    const std::shared_ptr<Unsubmitted> first = unsubmitted.front();
    forget(unsubmitted.begin());
    submit(*first, deltas);
  }
}

void TextEngine::State::end(std::unordered_map<RequestId, Submitted>::iterator at) {
  submitted_tokens -= at->second.prompt_tokens;
  fleet_ids.erase(at->second.id);
  submitted.erase(at);
}

void TextEngine::State::submit(Unsubmitted& waiting, std::vector<TextDelta>* deltas) {
  GenerationInput& input = waiting.input;
  const SamplingParams& params = input.options.params;
  TextDelta first;
  first.request = waiting.id;
  first.tag = input.tag;
  first.prompt_tokens = waiting.prompt.token_ids.size();
  if (input.return_prompt) {
    waiting.prompt.text = std::move(input.prompt);
    first.prompt = std::make_unique<UnderstoodPrompt>(waiting.refusal ? std::move(waiting.prompt) : waiting.prompt);
  }
  if (waiting.refusal) {
    first.error = std::move(waiting.refusal->message);
    first.error_code = waiting.refusal->code;
    first.last = true;
    deltas->push_back(std::move(first));
    return;
  }
  Request request;
  request.params = params;
  request.params.seed =
      input.options.seed ? *input.options.seed : seed_rule(waiting.prompt.token_ids, input.options.params);
  request.priority = input.priority;
  request.cache_salt = input.options.cache_salt;
  Submitted state;
  state.id = waiting.id;
  state.tag = input.tag;
  state.choices.resize(params.n);
  state.choices_left = params.n;
  state.ignores_eos = params.ignore_eos;
  state.keeps_stop_token = input.options.include_stop_str_in_output;
  state.prompt_tokens = first.prompt_tokens;
  for (Choice& choice : state.choices) {
    if (context.tokenizer == nullptr) break;
    choice.detokenizer.emplace(context.tokenizer, waiting.prompt.token_ids,
                               Detokenizer::Options{input.options.stop, input.options.include_stop_str_in_output,
                                                    input.options.skip_special_tokens, params.min_tokens});
  }
  request.prompt = std::move(waiting.prompt.token_ids);
  const auto id = fleet.submit(std::move(request), input.dp_rank);
  if (!id.ok()) {
    first.error = id.error().message;
    first.error_code = id.error().code;
    first.last = true;
  }
  if (first.prompt || first.last) deltas->push_back(std::move(first));
  if (!id.ok()) return;
  submitted_tokens += state.prompt_tokens;
  submitted.emplace(*id, std::move(state));
  fleet_ids.emplace(waiting.id, *id);
}

void TextEngine::State::take(FleetEvent& fleet_event, std::vector<TextDelta>* deltas) {
  TokenEvent& event = fleet_event.event;
  const auto found = submitted.find(event.request);
  if (found == submitted.end()) return;  // ended here by a stop string before the engine knew
  Submitted& request = found->second;
  TextDelta& delta = deltas->emplace_back();
  delta.request = request.id;
  delta.tag = request.tag;
  delta.choice = event.choice;
  delta.dp_rank = fleet_event.dp_rank;
  delta.prefill = event.prefill;
  delta.preemptions = event.preemptions.value_or(0);
  if (event.finish == FinishReason::error) {
    delta.error = std::move(event.error);
    delta.finish = FinishReason::error;
    delta.last = true;
    fleet.abort(event.request);
  } else {
    Choice& choice = request.choices[event.choice];
    delta.prompt_logprobs = std::move(event.prompt_logprobs);
    if (!choice.done) {
      if (event.token) take_token(event, request, choice, &delta);
      if (event.finish != FinishReason::none && !choice.done) {
        delta.finish = event.finish;
        const bool own_eos = event.stop_token == context.model.eos_token_id && !request.ignores_eos;
        if (!own_eos) delta.stop_token = event.stop_token;
        choice.done = true;
        if (choice.detokenizer) delta.text += choice.detokenizer->finish();
      }
      if (choice.done && --request.choices_left == 0) delta.last = true;
    }
  }
  delta.prompt_tokens = request.prompt_tokens;
  delta.output_tokens = request.output_tokens;
  if (delta.last) end(found);
}

void TextEngine::State::take_token(TokenEvent& event, Submitted& request, Choice& choice, TextDelta* delta) {
  CHECK(event.position == choice.tokens, "position {} after {} tokens", event.position, choice.tokens);
  ++choice.tokens;
  ++request.output_tokens;
  delta->token = event.token;
  delta->logprobs = std::move(event.logprobs);
  if (!choice.detokenizer) return;
  // The token that ends the output is not part of its text, unless asked for.
  if (event.finish == FinishReason::stop && !request.keeps_stop_token) return;
  delta->text = choice.detokenizer->push(*event.token);
  if (!choice.detokenizer->stopped()) return;
  delta->finish = FinishReason::stop;
  delta->stop_string = choice.detokenizer->stop_string();
  choice.done = true;
  if (event.finish == FinishReason::none) fleet.abort_choice(event.request, event.choice);
}

TextEngine::TextEngine(Fleet& fleet, std::shared_ptr<const Tokenizer> tokenizer, const EngineConfig& config,
                       const ModelConfig& model, SeedRule seed_rule, const TextEngineLimits& limits)
    : state_(
          std::make_unique<State>(fleet, Context{std::move(tokenizer), config, model}, std::move(seed_rule), limits)) {}
TextEngine::~TextEngine() = default;

std::size_t TextEngine::requests() const {
  return state_->requests();
}

bool TextEngine::has_room() const {
  return state_->requests() < state_->limits.requests_max &&
         (state_->unsubmitted.empty() || state_->unsubmitted_bytes < state_->limits.unsubmitted_bytes_max);
}

Result<TextRequestId> TextEngine::add(GenerationInput&& input) {
  State& state = *state_;
  if (!has_room()) {
    return fail(
        ErrorCode::resource_exhausted,
        "{} requests are in flight or waiting, of at most {}, and {} bytes of prompts wait to become tokens, of "
        "at most {}: try again when some have ended",
        state.requests(), state.limits.requests_max, state.unsubmitted_bytes, state.limits.unsubmitted_bytes_max);
  }
  const auto request = std::make_shared<Unsubmitted>();
  request->id = ++state.last_id;
  request->bytes = bytes_of(input);
  request->input = std::move(input);
  const auto understand = [context = &state.context, request] {
    if (const auto understood = context->understand(request.get()); !understood.ok()) {
      request->refusal = understood.error();
    }
    request->ready.store(true, std::memory_order_release);
  };
  state.unsubmitted.push_back(request);
  state.unsubmitted_bytes += request->bytes;
  if (request->bytes <= encoded_at_once_bytes_max || state.limits.encoder_threads == 0) {
    understand();
  } else {
    if (!state.encoders) state.encoders.emplace(state.limits.encoder_threads);
    state.encoders->add(understand);
  }
  return request->id;
}

void TextEngine::abort(TextRequestId request) {
  State& state = *state_;
  if (const auto found = state.fleet_ids.find(request); found != state.fleet_ids.end()) {
    state.fleet.abort(found->second);
    return state.end(state.submitted.find(found->second));
  }
  const auto at = std::find_if(state.unsubmitted.begin(), state.unsubmitted.end(),
                               [request](const auto& waiting) { return waiting->id == request; });
  if (at != state.unsubmitted.end()) state.forget(at);
}

std::uint64_t TextEngine::reset_prefix_caches() {
  return state_->fleet.reset_prefix_caches();
}

bool TextEngine::prefix_caches_are_reset(std::uint64_t number) const {
  return state_->fleet.prefix_caches_are_reset(number);
}

FleetWait TextEngine::wait() {
  const State& state = *state_;
  FleetWait wait = state.fleet.wait();
  if (state.is_encoding()) {
    wait.timeout_ms = std::min(wait.timeout_ms, encoding_slice_ms);
  } else if (!state.unsubmitted.empty() && state.may_submit()) {
    wait.timeout_ms = 0;
  }
  return wait;
}

Result<void> TextEngine::poll(int timeout_ms, std::vector<TextDelta>* deltas) {
  State& state = *state_;
  const std::size_t before = deltas->size();
  const Nanoseconds deadline = monotonic_now() + timeout_ms * millisecond;
  while (true) {
    state.submit_ready(deltas);
    const auto left_ms = static_cast<int>((deadline - monotonic_now() + millisecond - 1) / millisecond);
    int wait_ms = deltas->size() > before ? 0 : std::max(0, left_ms);
    if (state.is_encoding()) wait_ms = std::min(wait_ms, encoding_slice_ms);
    state.events.clear();
    CHORUS_TRY_VOID(state.fleet.poll(wait_ms, &state.events));
    for (FleetEvent& event : state.events) state.take(event, deltas);
    if (deltas->size() > before || monotonic_now() >= deadline) return {};
  }
}

}  // namespace chorus
