#include "server/admission.h"

#include <fmt/format.h>

namespace chorus {
namespace {

constexpr std::size_t bytes_per_token = 4;

}  // namespace

Admission::Admission(const AdmissionLimits& limits, const MetricStore* store, const MetricSlot& slot)
    : limits_(limits), store_(store), slot_(&slot) {}

std::uint64_t Admission::all(Metric gauge, std::uint64_t own) const {
  if (store_ == nullptr) return own;
  return static_cast<std::uint64_t>(store_->value(store_->layout().at(gauge, {})));
}

std::optional<std::string> Admission::refuse() const {
  const std::uint64_t requests = all(Metric::queued_requests, requests_);
  if (limits_.queued_requests_max != 0 && requests >= limits_.queued_requests_max) {
    slot_->add(Metric::admission_rejections, 1, {0, metric_value::too_many_requests});
    return fmt::format("{} requests wait, and --max-num-queued-reqs is {}: try again later", requests,
                       limits_.queued_requests_max);
  }
  const std::uint64_t tokens = all(Metric::queued_tokens, tokens_);
  if (limits_.queued_tokens_max != 0 && tokens >= limits_.queued_tokens_max) {
    slot_->add(Metric::admission_rejections, 1, {0, metric_value::too_many_tokens});
    return fmt::format("about {} prompt tokens wait, and --max-num-queued-tokens is {}: try again later", tokens,
                       limits_.queued_tokens_max);
  }
  return std::nullopt;
}

std::uint64_t Admission::tokens_of(const GenerationInput& input) {
  if (input.prompt_token_ids) return input.prompt_token_ids->size();
  return (input.prompt.size() + bytes_per_token - 1) / bytes_per_token;
}

void Admission::enter(std::uint64_t tokens) {
  ++requests_;
  tokens_ += tokens;
  write();
}

void Admission::leave(std::uint64_t tokens) {
  --requests_;
  tokens_ -= tokens;
  write();
}

void Admission::write() const {
  slot_->set(Metric::queued_requests, static_cast<double>(requests_));
  slot_->set(Metric::queued_tokens, static_cast<double>(tokens_));
}

}  // namespace chorus
