// An engine as Python holds it: made from option names and values, and with the work that it was made for.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine_thread.h"
#include "meeting.h"
#include "offline_jobs.h"
#include "streams.h"

namespace chorus::python {

class Engine {
 public:
  // By name; nullopt is Python's None and leaves the default.
  using Options = std::vector<std::pair<std::string, std::optional<std::string>>>;

  // Errors: invalid_argument, which names the option.
  static Result<EngineRequest> read(const std::string& model, const Options& options,
                                    const std::map<std::string, std::string>& environment, const std::string& program,
                                    const std::shared_ptr<Meeting>& meeting);

  // `streams`: add() and abort() are served, else generate().
  Engine(EngineRequest request, bool streams);
  // Waits for its end. In a child that fork() made, what is there of it is left as it is.
  ~Engine();
  Engine(Engine&&) = delete;

  // These raise, and so hold the GIL where they do not wait.
  bool wait_until_started(int timeout_ms) const;
  bool wait_until_ended(int timeout_ms) const;
  void stop(bool abandon) const;
  bool is_of_this_process() const { return thread_->is_of_this_process(); }
  const EngineFacts& facts() const { return thread_->facts(); }
  const std::shared_ptr<EngineThread>& thread() const { return thread_; }

  std::shared_ptr<OfflineJob> generate(std::vector<GenerationInput> inputs) const;
  void add(std::uint64_t number, GenerationInput input, const std::shared_ptr<Mailbox>& mailbox) const;
  void abort(std::uint64_t number) const;

 private:
  void check_process() const;

  std::shared_ptr<OfflineJobs> jobs_;  // one of the two
  std::shared_ptr<Streams> streams_;
  std::shared_ptr<EngineThread> thread_;
};

}  // namespace chorus::python
