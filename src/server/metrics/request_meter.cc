#include "server/metrics/request_meter.h"

#include <algorithm>

namespace chorus {
namespace {

double seconds(Nanoseconds time) {
  return static_cast<double>(time) * 1e-9;
}

std::size_t reason_of(FinishReason finish) {
  switch (finish) {
    case FinishReason::stop:
      return metric_value::stop;
    case FinishReason::length:
      return metric_value::length;
    case FinishReason::abort:
      return metric_value::abort;
    case FinishReason::none:
    case FinishReason::error:
      break;
  }
  return metric_value::error;
}

}  // namespace

RequestMeter::RequestMeter(const MetricSlot& slot, const SamplingParams& params, Nanoseconds arrived)
    : slot_(&slot), arrived_(arrived), max_tokens_(params.max_tokens), choices_(params.n) {}

void RequestMeter::take(const TextDelta& delta, Nanoseconds now) {
  if (delta.dp_rank >= 0) engine_ = delta.dp_rank;
  if (engine_ < 0) return;
  if (delta.error) return finish_all(metric_value::error);
  Choice& choice = choices_[delta.choice];
  preemptions_ += delta.preemptions;
  if (delta.token) take_token(choice, delta, now);
  if (delta.finish != FinishReason::none) finish(choice, reason_of(delta.finish));
  if (delta.last) end(now);
}

void RequestMeter::take_token(Choice& choice, const TextDelta& delta, Nanoseconds now) {
  if (!has_token()) begin(delta, now);
  const MetricSeries series{engine_, 0};
  slot_->add(Metric::generation_tokens, 1, series);
  if (choice.tokens++ == 0) {
    choice.first_token_at = now;
  } else {
    slot_->observe(Metric::inter_token_latency, seconds(now - choice.last_token_at), series);
  }
  choice.last_token_at = now;
}

// With the request's first token.
void RequestMeter::begin(const TextDelta& delta, Nanoseconds now) {
  const MetricSeries series{engine_, 0};
  first_token_at_ = now;
  prompt_tokens_ = delta.prompt_tokens;
  if (delta.prefill) {
    cached_tokens_ = std::min(delta.prefill->cached_tokens, prompt_tokens_);
    prefill_s_ = static_cast<double>(delta.prefill->duration_us) * 1e-6;
  }
  prefill_s_ = std::min(prefill_s_, seconds(now - arrived_));
  slot_->observe(Metric::time_to_first_token, seconds(now - arrived_), series);
  slot_->add(Metric::prompt_tokens, prompt_tokens_, series);
  slot_->add(Metric::prompt_tokens_cached, cached_tokens_, series);
  slot_->add(Metric::prompt_tokens_by_source, prompt_tokens_ - cached_tokens_, {engine_, metric_value::computed});
  slot_->add(Metric::prompt_tokens_by_source, cached_tokens_, {engine_, metric_value::cached});
}

void RequestMeter::finish(Choice& choice, std::size_t reason) {
  if (choice.finished) return;
  choice.finished = true;
  const MetricSeries series{engine_, 0};
  slot_->add(Metric::request_success, 1, {engine_, reason});
  slot_->observe(Metric::request_generation_tokens, static_cast<double>(choice.tokens), series);
  if (choice.tokens < 2) return;
  const double mean = seconds(choice.last_token_at - choice.first_token_at) / static_cast<double>(choice.tokens - 1);
  slot_->observe(Metric::time_per_output_token, mean, series);
}

void RequestMeter::finish_all(std::size_t reason) {
  if (engine_ < 0) return;
  for (Choice& choice : choices_) finish(choice, reason);
}

void RequestMeter::end_aborted() {
  finish_all(metric_value::abort);
}

void RequestMeter::end(Nanoseconds now) {
  const MetricSeries series{engine_, 0};
  const double whole_s = seconds(now - arrived_), to_first_s = seconds(first_token_at_ - arrived_);
  const double queue_s = std::max(to_first_s - prefill_s_, 0.);
  slot_->observe(Metric::e2e_latency, whole_s, series);
  slot_->observe(Metric::queue_time, queue_s, series);
  slot_->observe(Metric::prefill_time, prefill_s_, series);
  slot_->observe(Metric::decode_time, whole_s - to_first_s, series);
  slot_->observe(Metric::inference_time, whole_s - queue_s, series);
  slot_->observe(Metric::request_prompt_tokens, static_cast<double>(prompt_tokens_), series);
  slot_->observe(Metric::request_prefill_computed_tokens, static_cast<double>(prompt_tokens_ - cached_tokens_), series);
  slot_->observe(Metric::request_params_n, static_cast<double>(choices_.size()), series);
  slot_->observe(Metric::request_params_max_tokens, max_tokens_, series);
  slot_->observe(Metric::request_num_preemptions, static_cast<double>(preemptions_), series);
  const auto longest = std::ranges::max_element(choices_, {}, &Choice::tokens);
  slot_->observe(Metric::request_max_num_generation_tokens, static_cast<double>(longest->tokens), series);
}

}  // namespace chorus
