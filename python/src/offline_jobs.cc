#include "offline_jobs.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

namespace chorus::python {

bool OfflineJob::wait(int timeout_ms) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return ended_; });
}

void OfflineJob::run(TextEngine& engine, const EngineConfig& config, const std::atomic<bool>& stopping) {
  std::vector<OfflineRow> rows = deal(std::move(inputs_), config);
  OfflineWork work;
  work.next = rows_of(&rows);
  // The first prompt that cannot run ends the call, as vLLM's does: nothing is computed for a list that fails.
  work.on_finished = [this](std::size_t index, GenerationOutput&& output) -> Result<void> {
    if (output.error) return fail(output.error_code, "prompt {}: {}", index, *output.error);
    outputs_[index] = std::move(output);
    return {};
  };
  work.on_progress = [this](const GenerationProgress& progress) {
    finished_ = progress.finished;
    output_tokens_ = progress.output_tokens;
  };
  work.interrupted = [this, &stopping] { return cancelled_ || stopping; };
  finish(run_offline(engine, work));
}

void OfflineJob::finish(Result<void> result) {
  const std::lock_guard lock(mutex_);
  result_ = std::move(result);
  ended_ = true;
  changed_.notify_all();
}

TextEngineLimits OfflineJobs::limits(const EngineConfig& config) const {
  return offline_limits(config);
}

Result<void> OfflineJobs::serve(TextEngine& engine, const EngineConfig& config, const std::atomic<bool>& stopping) {
  std::vector<TextDelta> none;  // nothing is in flight between two jobs
  while (!stopping) {
    if (const auto job = next()) {
      job->run(engine, config, stopping);
    } else {
      CHORUS_TRY_VOID(idle(engine, &none));
    }
  }
  return {};
}

void OfflineJobs::end(const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    ended_ = why;  // nothing is added from here on
  }
  while (const auto job = next()) job->finish(why);
}

std::shared_ptr<OfflineJob> OfflineJobs::next() {
  const std::lock_guard lock(mutex_);
  if (jobs_.empty()) return nullptr;
  auto job = std::move(jobs_.front());
  jobs_.pop_front();
  return job;
}

void OfflineJobs::add(const std::shared_ptr<OfflineJob>& job) {
  std::optional<Error> ended;
  {
    const std::lock_guard lock(mutex_);
    ended = ended_;
    if (!ended) jobs_.push_back(job);
  }
  if (ended) return job->finish(*ended);
  wake();
}

}  // namespace chorus::python
