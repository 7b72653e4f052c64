// Lists of prompts, one list after the other, each to its whole outputs.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine_work.h"
#include "frontend/offline.h"

namespace chorus::python {

// One call of LLM.generate. Its maker and the engine's thread share it.
class OfflineJob {
 public:
  explicit OfflineJob(std::vector<GenerationInput> inputs) : inputs_(std::move(inputs)), outputs_(inputs_.size()) {}

  // True: it has ended. Any thread, as all of these.
  bool wait(int timeout_ms);
  // The engine's thread turns to the next job within 100 ms.
  void cancel() { cancelled_ = true; }
  std::size_t finished() const { return finished_; }
  std::uint64_t output_tokens() const { return output_tokens_; }
  std::size_t size() const { return outputs_.size(); }
  // Once it has ended. An error: the first prompt that could not run, or the engine's end.
  const Result<void>& result() const { return result_; }
  std::vector<GenerationOutput>& outputs() { return outputs_; }

 private:
  friend class OfflineJobs;
  void run(TextEngine& engine, const EngineConfig& config, const std::atomic<bool>& stopping);
  void finish(Result<void> result);

  std::vector<GenerationInput> inputs_;
  std::vector<GenerationOutput> outputs_;
  std::atomic<bool> cancelled_ = false;
  std::atomic<std::size_t> finished_ = 0;
  std::atomic<std::uint64_t> output_tokens_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  Result<void> result_;
};

class OfflineJobs final : public EngineWork {
 public:
  TextEngineLimits limits(const EngineConfig& config) const override;
  Result<void> serve(TextEngine& engine, const EngineConfig& config, const std::atomic<bool>& stopping) override;
  void end(const Error& why) override;

  void add(const std::shared_ptr<OfflineJob>& job);

 private:
  std::shared_ptr<OfflineJob> next();

  std::mutex mutex_;
  std::deque<std::shared_ptr<OfflineJob>> jobs_;
  std::optional<Error> ended_;
};

}  // namespace chorus::python
