// Whether one more request may wait. Beyond the limits it is refused at once, instead of waiting for so long that its
// client gives up: under overload those that were taken are answered in time.
//
// What waits is a prompt that was taken and has no token yet, in all front ends together: each counts its own in the
// metrics' shared memory. The tokens of a text are about one for each four bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "frontend/text_engine.h"
#include "server/metrics/metric_store.h"

namespace chorus {

struct AdmissionLimits {
  std::uint64_t queued_requests_max = 0;  // 0: no limit
  std::uint64_t queued_tokens_max = 0;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.queued_requests_max, self.queued_tokens_max);
  }
};

class Admission {
 public:
  // `store`: the slot is of it; both outlive this. nullptr: what this front end counts is all.
  Admission(const AdmissionLimits& limits, const MetricStore* store, const MetricSlot& slot);

  // Why nothing more is taken now, with the limit; nullopt: it may be. Counts the refusal.
  std::optional<std::string> refuse() const;

  static std::uint64_t tokens_of(const GenerationInput& input);
  void enter(std::uint64_t tokens);
  void leave(std::uint64_t tokens);  // it has a token, or is over

 private:
  std::uint64_t all(Metric gauge, std::uint64_t own) const;
  void write() const;

  AdmissionLimits limits_;
  const MetricStore* store_;
  const MetricSlot* slot_;
  std::uint64_t requests_ = 0, tokens_ = 0;
};

}  // namespace chorus
