// The engine of one LLM or AsyncLLM: a fleet, and a text engine over it, on a thread of their own. So any thread of
// Python may call, none of them computes, and the engines' processes live as long as this does, not as the thread that
// happened to make it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/result.h"
#include "config/engine_config.h"
#include "engine_work.h"
#include "frontend/chat_format.h"
#include "frontend/read_model.h"
#include "launch/launched_world.h"
#include "parallel/launch/launcher.h"
#include "parallel/store/store.h"

namespace chorus::python {

struct EngineRequest {
  EngineConfig config;
  std::string program;  // the path of what engines are started from
  // For external_launcher: which of the launcher's ranks this process is, and where all of them meet for this engine.
  LauncherEnvironment launcher;
  std::shared_ptr<Store> meeting;
};

// What is known once an engine serves.
struct EngineFacts {
  EngineConfig config;  // with what the machine and the model have decided
  TextModel model;
  ChatFormat chat;
  int world_rank = 0;  // of this process
  Coordinates at;
  bool is_front = true;  // prompts come in here; false: another rank of the launched world has them
};

class EngineThread {
 public:
  enum class Phase { starting, serving, ended };

  EngineThread(EngineRequest request, std::shared_ptr<EngineWork> work);
  ~EngineThread();  // stop(), and waits for the end

  // Waits at most that long for another phase than `starting`, or for `ended`. Returns the phase.
  Phase wait_until_started(int timeout_ms);
  Phase wait_until_ended(int timeout_ms);
  const EngineFacts& facts() const { return facts_; }  // from `serving` on
  // Once it has ended: why, if nobody had asked for it.
  std::optional<Error> failure();

  // Asks for the end and returns: what is in flight is aborted, the processes end. Of a launched world it is rank 0's
  // to end the others: they go on until it has, unless they `abandon` it, which breaks the world.
  void stop(bool abandon);

  // Nothing of it is here in a child that fork() made: the thread and the engines are its parent's.
  bool is_of_this_process() const;
  // It is never destroyed: it belongs to another process, or does not end. `itself` holds this.
  void stay(std::shared_ptr<EngineThread> itself) { itself_ = std::move(itself); }

 private:
  Result<void> run();
  Result<void> run_own_fleet();
  Result<void> run_launched();
  Result<void> serve_rank(LaunchedWorld& world);
  Result<void> serve_on(Fleet& fleet);
  void enter(Phase phase);
  bool launched() const { return request_.config.distributed_executor_backend == "external_launcher"; }

  EngineRequest request_;
  std::shared_ptr<EngineWork> work_;
  const pid_t owner_;
  EngineFacts facts_;
  std::atomic<bool> stopping_ = false;   // the front's work
  std::atomic<bool> abandoned_ = false;  // everything, at once
  std::mutex mutex_;
  std::condition_variable changed_;
  Phase phase_ = Phase::starting;
  std::optional<Error> failure_;
  std::thread thread_;
  std::shared_ptr<EngineThread> itself_;
};

}  // namespace chorus::python
