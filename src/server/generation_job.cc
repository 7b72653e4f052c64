#include "server/generation_job.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace chorus {
namespace {

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return 400;
    case ErrorCode::resource_exhausted:
    case ErrorCode::unavailable:
      return 503;
    default:
      return 500;
  }
}

}  // namespace

GenerationJob::GenerationJob(std::shared_ptr<Exchange> exchange, GenerationRequest request, AnswerHead head,
                             TokenLabel token_label, std::vector<std::pair<std::string, std::string>> fields)
    : exchange_(std::move(exchange)),
      request_(std::move(request)),
      writer_(std::move(head), request_, token_label),
      fields_(std::move(fields)),
      choices_per_prompt_(request_.choices_per_prompt()),
      prompts_(request_.inputs.size()),
      choices_(request_.inputs.size() * choices_per_prompt_) {
  if (request_.output.is_plain()) return;
  for (Choice& choice : choices_) choice.parser.emplace(request_.output);
}

void GenerationJob::take(std::size_t index, TextDelta&& delta) {
  Prompt& prompt = prompts_[index];
  if (delta.prompt) {
    prompt.shown.prompt = std::move(*delta.prompt);
    prompt.shows_prompt = true;
  }
  if (!delta.prompt_logprobs.empty()) prompt.shown.logprobs = std::move(delta.prompt_logprobs);
  // They come with choice 0's first token; a prompt of one token has none.
  if (delta.choice == 0 && delta.token) prompt.shows_logprobs = true;
  prompt.usage.prompt_tokens = delta.prompt_tokens;
  prompt.usage.completion_tokens = request_.prompt_alone ? 0 : delta.output_tokens;
  if (delta.prefill && !prompt.usage.cached_tokens) prompt.usage.cached_tokens = delta.prefill->cached_tokens;
  prompt.ended = delta.last;
  Choice& choice = choices_[index * choices_per_prompt_ + delta.choice];
  append(std::move(delta), &choice);
}

void GenerationJob::end_early() {
  for (std::size_t index = 0; index < prompts_.size(); ++index) {
    Prompt& prompt = prompts_[index];
    if (std::exchange(prompt.ended, true)) continue;
    prompt.shows_prompt = prompt.shows_logprobs = true;  // as far as they have come
    end_choices_early(index);
  }
}

void GenerationJob::end_choices_early(std::size_t prompt) {
  for (std::uint32_t i = 0; i < choices_per_prompt_; ++i) {
    Choice& choice = choices_[prompt * choices_per_prompt_ + i];
    if (choice.ended) continue;
    TextDelta end;
    end.finish = FinishReason::abort;
    append(std::move(end), &choice);
  }
}

void GenerationJob::append(TextDelta&& delta, Choice* choice) {
  choice->ended = choice->ended || delta.finish != FinishReason::none;
  OutputDelta parsed;
  if (choice->parser) {
    const bool thought = choice->parser->thinks();
    choice->parser->push(std::exchange(delta.text, {}), &parsed);
    if (delta.token && thought && choice->parser->thinks()) ++choice->reasoning_tokens;
    if (delta.finish != FinishReason::none) choice->parser->finish(&parsed);
    choice->part.ends_with_calls = choice->parser->has_calls();
  }
  choice->part.append(std::move(delta));
  choice->part.append(std::move(parsed));
}

bool GenerationJob::ended() const {
  return std::ranges::all_of(prompts_, &Prompt::ended);
}

Usage GenerationJob::usage() const {
  Usage sum;
  std::uint64_t cached_tokens = 0;
  for (const Prompt& prompt : prompts_) {
    sum.prompt_tokens += prompt.usage.prompt_tokens;
    sum.completion_tokens += prompt.usage.completion_tokens;
    cached_tokens += prompt.usage.cached_tokens.value_or(0);
  }
  if (request_.prompt_tokens_details) sum.cached_tokens = cached_tokens;
  if (!request_.output.reasoning) return sum;
  sum.reasoning_tokens = 0;
  for (const Choice& choice : choices_) *sum.reasoning_tokens += choice.reasoning_tokens;
  return sum;
}

// What a choice's first part shows of the prompt is there.
bool GenerationJob::is_complete(const Prompt& prompt) const {
  const GenerationInput& input = request_.inputs.front();
  return (!input.return_prompt || prompt.shows_prompt) &&
         (!input.options.params.prompt_logprobs || prompt.shows_logprobs);
}

AnswerChoice GenerationJob::shown(std::size_t index) const {
  const Choice& choice = choices_[index];
  const Prompt& prompt = prompts_[index / choices_per_prompt_];
  const bool with_prompt = request_.inputs.front().return_prompt && !choice.prompt_shown;
  return {static_cast<std::uint32_t>(index), &choice.part, with_prompt ? &prompt.shown : nullptr, choice.text_offset};
}

void GenerationJob::tell() {
  if (!request_.stream) {
    if (ended()) tell_whole();
    return;
  }
  for (std::size_t index = 0; index < choices_.size() && exchange_->has_room(); ++index) tell_choice(index);
  const bool all_told = std::ranges::all_of(choices_, [](const Choice& choice) { return choice.part.is_empty(); });
  if (ended() && all_told) end_stream();
}

void GenerationJob::tell_choice(std::size_t index) {
  Choice& choice = choices_[index];
  const Prompt& prompt = prompts_[index / choices_per_prompt_];
  if (choice.part.is_empty() || !is_complete(prompt)) return;
  // A token whose text is still kept back says nothing by itself.
  const bool tells_tokens = request_.logprobs || request_.return_token_ids;
  if (choice.part.says_nothing() && choice.part.finish == FinishReason::none && !tells_tokens) return;
  if (!streams_) begin_stream();
  if (!std::exchange(choice.opened, true)) {
    if (const auto opening = writer_.opening(static_cast<std::uint32_t>(index))) send(*opening);
  }
  // As OpenAI has it: its own client loses a call that begins in the chunk that ends the choice.
  std::optional<AnswerPart> end;
  if (!choice.part.calls.empty() && choice.part.finish != FinishReason::none) end = choice.part.take_end();
  tell_part(index);
  if (!end) return;
  choice.part = std::move(*end);
  tell_part(index);
}

void GenerationJob::tell_part(std::size_t index) {
  Choice& choice = choices_[index];
  std::optional<Usage> so_far;
  if (request_.continuous_usage_stats) so_far = usage();
  const AnswerChoice told = shown(index);
  send(writer_.chunk(told, so_far));
  choice.text_offset = writer_.text_offset_after(told);
  choice.prompt_shown = true;
  choice.part = {};
}

void GenerationJob::tell_whole() {
  std::vector<AnswerChoice> all;
  for (std::size_t index = 0; index < choices_.size(); ++index) all.push_back(shown(index));
  HttpResponse response;
  response.body = writer_.whole(all, usage());
  response.fields = std::move(fields_);
  exchange_->respond(std::move(response));
  told_ = true;
}

void GenerationJob::begin_stream() {
  streams_ = true;
  HttpResponse head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.fields = std::move(fields_);
  head.fields.emplace_back("cache-control", "no-cache");
  head.fields.emplace_back("x-accel-buffering", "no");
  exchange_->begin_stream(std::move(head));
}

void GenerationJob::end_stream() {
  told_ = true;
  if (request_.include_usage) send(writer_.usage_chunk(usage()));
  send("[DONE]");
  exchange_->end_stream();
}

void GenerationJob::send(const std::string& json) {
  exchange_->write(server_sent_event(json));
}

void GenerationJob::fail(ErrorCode code, const std::string& message) {
  told_ = true;
  const int status = status_of(code);
  if (!streams_) {
    HttpResponse refusal = error_response(status, message);
    refusal.fields = std::move(fields_);
    if (status == 503) refusal.fields.emplace_back("retry-after", "1");
    return exchange_->respond(std::move(refusal));
  }
  exchange_->write(server_sent_event(error_json(status, message)));
  exchange_->write(server_sent_event("[DONE]"));
  exchange_->end_stream();
}

}  // namespace chorus
