#include "frontend/text_generator.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/check.h"
#include "frontend/front_door.h"

namespace chorus {
namespace {

constexpr int poll_ms = 100;
// Encoding a large input takes time; between this many prompts the engines' events are taken in.
constexpr std::size_t submissions_between_polls = 64;
// Requests in flight on this side at most; an input of a million rows does not become a million detokenizers.
constexpr std::size_t in_flight_max = 16384;

struct ChoiceInProgress {
  GeneratedChoice choice;
  std::optional<Detokenizer> detokenizer;
  bool done = false;
};

struct RequestInProgress {
  std::size_t index = 0;
  GenerationOutput output;
  std::vector<ChoiceInProgress> choices;
  std::size_t choices_left = 0;
  Nanoseconds submitted_at = 0;
  bool has_first_token = false;
};

double seconds_since(Nanoseconds start) {
  return static_cast<double>(monotonic_now() - start) * 1e-9;
}

}  // namespace

struct TextGenerator::State {
  State(Fleet& fleet, std::shared_ptr<const Tokenizer> tokenizer, const EngineConfig& config, const ModelConfig& model)
      : fleet(fleet), tokenizer(std::move(tokenizer)), config(config), model(model) {}

  Fleet& fleet;
  std::shared_ptr<const Tokenizer> tokenizer;
  EngineConfig config;
  ModelConfig model;

  // Of one generate() call.
  const std::vector<GenerationInput>* inputs = nullptr;
  const Callbacks* callbacks = nullptr;
  std::unordered_map<RequestId, RequestInProgress> in_progress;
  std::vector<FleetEvent> events;
  GenerationProgress progress;

  Result<std::vector<TokenId>> prompt_ids(const GenerationInput& input) const;
  void finish_with_error(std::size_t index, GenerationOutput&& output, std::string message);
  Result<void> submit(std::size_t index, std::optional<int> dp_rank);
  Result<void> take_events(int timeout_ms);
  void take(const FleetEvent& fleet_event);
  void take_token(const TokenEvent& event, RequestInProgress& request, ChoiceInProgress& choice);
  void end_choice(RequestId id, RequestInProgress& request, ChoiceInProgress& choice);
  void abandon_rest(const std::string& message);
  const GenerationOptions& options_of(const RequestInProgress& request) const {
    return (*inputs)[request.index].options;
  }
};

Result<std::vector<TokenId>> TextGenerator::State::prompt_ids(const GenerationInput& input) const {
  if (input.prompt_token_ids) return *input.prompt_token_ids;
  if (tokenizer == nullptr) {
    return fail(ErrorCode::invalid_argument, "{}: no tokenizer.json; give \"prompt_token_ids\" instead of a text",
                config.model);
  }
  return tokenizer->encode(input.prompt, input.add_special_tokens);
}

void TextGenerator::State::finish_with_error(std::size_t index, GenerationOutput&& output, std::string message) {
  output.choices.clear();
  output.error = std::move(message);
  ++progress.finished;
  callbacks->on_finished(index, std::move(output));
}

Result<void> TextGenerator::State::submit(std::size_t index, std::optional<int> dp_rank) {
  const GenerationInput& input = (*inputs)[index];
  GenerationOutput output;
  output.prompt = input.prompt;
  if (input.error) {
    finish_with_error(index, std::move(output), *input.error);
    return {};
  }
  auto ids = prompt_ids(input);
  if (!ids.ok()) {
    finish_with_error(index, std::move(output), ids.error().message);
    return {};
  }
  output.prompt_token_ids = *ids;
  if (input.prompt.empty() && input.prompt_token_ids && tokenizer != nullptr) {
    if (auto text = tokenizer->decode(*ids, false); text.ok()) output.prompt = std::move(*text);
  }
  if (auto checked = check_prompt(*ids, input.options.params, config, model); !checked.ok()) {
    finish_with_error(index, std::move(output), checked.error().message);
    return {};
  }

  if (tokenizer == nullptr && !input.options.stop.empty()) {
    finish_with_error(index, std::move(output),
                      "stop strings need a tokenizer.json, which " + config.model + " has not: use stop_token_ids");
    return {};
  }

  Request request;
  request.params = input.options.params;
  request.params.seed = input.options.seed ? *input.options.seed : seed_for(config.seed, *ids);
  request.priority = input.priority;
  RequestInProgress state;
  state.index = index;
  state.choices.resize(request.params.n);
  state.choices_left = request.params.n;
  for (std::uint32_t i = 0; i < request.params.n; ++i) {
    state.choices[i].choice.index = i;
    if (tokenizer != nullptr) {
      state.choices[i].detokenizer.emplace(
          tokenizer, *ids,
          Detokenizer::Options{input.options.stop, input.options.include_stop_str_in_output,
                               input.options.skip_special_tokens, request.params.min_tokens});
    }
  }
  state.output = std::move(output);
  state.submitted_at = monotonic_now();
  request.prompt = std::move(*ids);
  CHORUS_TRY(const RequestId id, fleet.submit(std::move(request), dp_rank));
  in_progress.emplace(id, std::move(state));
  return {};
}

Result<void> TextGenerator::State::take_events(int timeout_ms) {
  events.clear();
  CHORUS_TRY_VOID(fleet.poll(timeout_ms, &events));
  for (const FleetEvent& event : events) take(event);
  return {};
}

void TextGenerator::State::take(const FleetEvent& fleet_event) {
  const TokenEvent& event = fleet_event.event;
  const auto found = in_progress.find(event.request);
  if (found == in_progress.end()) return;  // ended here by a stop string before the engine knew
  RequestInProgress& request = found->second;
  request.output.dp_rank = fleet_event.dp_rank;
  if (event.finish == FinishReason::error) {
    RequestInProgress failed = std::move(request);
    in_progress.erase(found);
    fleet.abort(event.request);
    finish_with_error(failed.index, std::move(failed.output), event.error);
    return;
  }
  for (const PositionLogprobs& scored : event.prompt_logprobs) request.output.prompt_logprobs.push_back(scored);
  ChoiceInProgress& choice = request.choices[event.choice];
  if (choice.done) return;
  if (event.token) take_token(event, request, choice);
  if (event.finish != FinishReason::none && !choice.done) {
    choice.choice.finish_reason = event.finish;
    const bool own_eos = event.stop_token == model.eos_token_id && !options_of(request).params.ignore_eos;
    if (!own_eos) choice.choice.stop_token = event.stop_token;
    choice.done = true;
    if (choice.detokenizer) choice.choice.text += choice.detokenizer->finish();
  }
  if (choice.done) end_choice(event.request, request, choice);
}

void TextGenerator::State::take_token(const TokenEvent& event, RequestInProgress& request, ChoiceInProgress& choice) {
  CHECK(event.position == choice.choice.token_ids.size(), "position {} after {} tokens", event.position,
        choice.choice.token_ids.size());
  if (!request.has_first_token) {
    request.has_first_token = true;
    request.output.ttft_s = seconds_since(request.submitted_at);
  }
  ++progress.output_tokens;
  choice.choice.token_ids.push_back(*event.token);
  if (event.logprobs) choice.choice.logprobs.push_back(*event.logprobs);
  if (!choice.detokenizer) return;
  // The token that ends the output is not part of its text, unless asked for.
  const bool silent = event.finish == FinishReason::stop && !options_of(request).include_stop_str_in_output;
  if (silent) return;
  choice.choice.text += choice.detokenizer->push(*event.token);
  if (!choice.detokenizer->stopped()) return;
  choice.choice.finish_reason = FinishReason::stop;
  choice.choice.stop_string = choice.detokenizer->stop_string();
  choice.done = true;
  if (event.finish == FinishReason::none) fleet.abort_choice(event.request, event.choice);
}

void TextGenerator::State::end_choice(RequestId id, RequestInProgress& request, ChoiceInProgress&) {
  if (--request.choices_left > 0) return;
  RequestInProgress done = std::move(request);
  in_progress.erase(id);
  for (ChoiceInProgress& choice : done.choices) done.output.choices.push_back(std::move(choice.choice));
  done.output.latency_s = seconds_since(done.submitted_at);
  ++progress.finished;
  callbacks->on_finished(done.index, std::move(done.output));
}

void TextGenerator::State::abandon_rest(const std::string& message) {
  std::map<std::size_t, RequestId> rest;  // in input order
  for (const auto& [id, request] : in_progress) rest.emplace(request.index, id);
  for (const auto& [index, id] : rest) {
    fleet.abort(id);
    RequestInProgress request = std::move(in_progress.at(id));
    in_progress.erase(id);
    if (!message.empty()) finish_with_error(index, std::move(request.output), message);
  }
}

TextGenerator::TextGenerator(Fleet& fleet, std::shared_ptr<const Tokenizer> tokenizer, const EngineConfig& config,
                             const ModelConfig& model)
    : state_(std::make_unique<State>(fleet, std::move(tokenizer), config, model)) {}
TextGenerator::~TextGenerator() = default;

Result<void> TextGenerator::generate(const std::vector<GenerationInput>& inputs, const Callbacks& callbacks,
                                     std::optional<Nanoseconds> deadline, const std::string& deadline_message) {
  State& state = *state_;
  state.inputs = &inputs;
  state.callbacks = &callbacks;
  state.progress = {0, inputs.size(), 0};
  const std::vector<std::optional<int>> ranks = ranks_for(inputs, state.config);
  const std::vector<std::size_t> order = submission_order(ranks);
  const auto stopped = [&]() -> Result<bool> {
    if (callbacks.interrupted && callbacks.interrupted()) {
      state.abandon_rest("");
      return fail(ErrorCode::cancelled, "interrupted");
    }
    return deadline && monotonic_now() >= *deadline;
  };

  std::size_t next = 0;
  bool late = false;
  while (!late && (next < inputs.size() || !state.in_progress.empty())) {
    const auto may_submit = [&] { return next < order.size() && state.in_progress.size() < in_flight_max; };
    for (std::size_t i = 0; i < submissions_between_polls && may_submit(); ++i, ++next) {
      CHORUS_TRY_VOID(state.submit(order[next], ranks[order[next]]));
    }
    const bool waiting = !may_submit() && !state.in_progress.empty();
    CHORUS_TRY_VOID(state.take_events(waiting ? poll_ms : 0));
    if (callbacks.on_progress) callbacks.on_progress(state.progress);
    CHORUS_TRY(late, stopped());
  }
  if (late) {
    state.abandon_rest(deadline_message);
    for (; next < inputs.size(); ++next) {
      GenerationOutput output;
      output.prompt = inputs[order[next]].prompt;
      state.finish_with_error(order[next], std::move(output), deadline_message);
    }
  }
  return {};
}

}  // namespace chorus
