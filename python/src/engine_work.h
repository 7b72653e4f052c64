// What the thread of an engine (engine_thread.h) does once its fleet is there: whole outputs for LLM.generate
// (offline_jobs.h), or a stream a request for AsyncLLM.generate (stream_work.h).
#pragma once

#include <atomic>

#include "base/result.h"
#include "config/engine_config.h"
#include "frontend/text_engine.h"
#include "wakeup.h"

namespace chorus::python {

class EngineWork {
 public:
  virtual ~EngineWork() = default;
  virtual TextEngineLimits limits(const EngineConfig& config) const = 0;
  // On the engine's thread, until `stopping`. An error: the fleet has failed.
  virtual Result<void> serve(TextEngine& engine, const EngineConfig& config, const std::atomic<bool>& stopping) = 0;
  // Nothing is served any more: what waits, and what comes later, fails with this.
  virtual void end(const Error& why) = 0;
  void wake() { wakeup_.ring(); }

 protected:
  // Waits until the fleet has to go on or somebody wakes the thread, and lets the fleet go on.
  Result<void> idle(TextEngine& engine, std::vector<TextDelta>* deltas);

 private:
  Wakeup wakeup_;
};

}  // namespace chorus::python
