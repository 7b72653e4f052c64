// Counts what one request says: tokens and times, from its arrival to its end. Pure: it is told the time.
//
// Tokens, their latency and finishes count for each choice, everything else once a request. A request that no replica
// has begun counts nowhere here.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "frontend/text_engine.h"
#include "server/metrics/metric_store.h"

namespace chorus {

class RequestMeter {
 public:
  // `slot` outlives this.
  RequestMeter(const MetricSlot& slot, const SamplingParams& params, Nanoseconds arrived);

  void take(const TextDelta& delta, Nanoseconds now);
  // It was ended by its client, or by this side: no delta follows.
  void end_aborted();
  bool has_token() const { return first_token_at_ != 0; }

 private:
  struct Choice {
    Nanoseconds first_token_at = 0, last_token_at = 0;
    std::uint64_t tokens = 0;
    bool finished = false;
  };

  void take_token(Choice& choice, const TextDelta& delta, Nanoseconds now);
  void begin(const TextDelta& delta, Nanoseconds now);
  void finish(Choice& choice, std::size_t reason);
  void finish_all(std::size_t reason);
  void end(Nanoseconds now);

  const MetricSlot* slot_;
  Nanoseconds arrived_, first_token_at_ = 0;
  std::uint64_t prompt_tokens_ = 0, cached_tokens_ = 0;
  double prefill_s_ = 0;
  std::uint32_t max_tokens_;
  std::uint64_t preemptions_ = 0;
  int engine_ = -1;  // the last one; -1: none yet
  std::vector<Choice> choices_;
};

}  // namespace chorus
