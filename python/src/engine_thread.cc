#include "engine_thread.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "config/node.h"
#include "exec/kv_capacity.h"
#include "frontend/offline.h"
#include "launch/launch_fleet.h"

namespace chorus::python {
namespace {

// Starts a thread that no signal of the process comes to: they are Python's, whose main thread waits for them.
std::thread without_signals(std::function<void()> body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  std::thread thread(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

EngineThread::EngineThread(EngineRequest request, std::shared_ptr<EngineWork> work)
    : request_(std::move(request)), work_(std::move(work)), owner_(::getpid()) {
  thread_ = without_signals([this] {
    const Result<void> ran = run();
    const bool asked_for = stopping_ || abandoned_;
    const Error why = ran.ok() || asked_for ? fail(ErrorCode::unavailable, "it was closed") : ran.error();
    work_->end(why);
    if (!ran.ok() && !asked_for) failure_ = ran.error();
    enter(Phase::ended);
  });
}

EngineThread::~EngineThread() {
  stop(false);
  thread_.join();
}

bool EngineThread::is_of_this_process() const {
  return ::getpid() == owner_;
}

void EngineThread::enter(Phase phase) {
  const std::lock_guard lock(mutex_);
  phase_ = phase;
  changed_.notify_all();
}

EngineThread::Phase EngineThread::wait_until_started(int timeout_ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return phase_ != Phase::starting; });
  return phase_;
}

EngineThread::Phase EngineThread::wait_until_ended(int timeout_ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return phase_ == Phase::ended; });
  return phase_;
}

std::optional<Error> EngineThread::failure() {
  const std::lock_guard lock(mutex_);
  return phase_ == Phase::ended ? failure_ : std::nullopt;
}

void EngineThread::stop(bool abandon) {
  stopping_ = true;
  if (abandon || !launched()) abandoned_ = true;
  work_->wake();
}

Result<void> EngineThread::run() {
  CHORUS_TRY(ModelConfig model, read_model(request_.config));
  CHORUS_TRY(facts_.config, fit_to_kv_memory(request_.config, model, detect_node()));
  CHORUS_TRY(facts_.model, with_tokenizer(std::move(model)));
  CHORUS_TRY(facts_.chat, ChatFormat::load(facts_.config.model));
  return launched() ? run_launched() : run_own_fleet();
}

Result<void> EngineThread::run_own_fleet() {
  const auto interrupted = [this] { return abandoned_.load(); };
  CHORUS_TRY(FleetSetup setup, launch_setup(facts_.config, facts_.model.config, interrupted));
  setup.engine_program = request_.program;
  CHORUS_TRY(const auto fleet, start_fleet(facts_.config, facts_.model.config, std::move(setup)));
  return serve_on(*fleet);
}

Result<void> EngineThread::serve_on(Fleet& fleet) {
  TextEngine engine(fleet, facts_.model.tokenizer, facts_.config, facts_.model.config,
                    seed_by_prompt(facts_.config.seed), work_->limits(facts_.config));
  enter(Phase::serving);
  return work_->serve(engine, facts_.config, stopping_);
}

Result<void> EngineThread::run_launched() {
  CHORUS_TRY(const auto world, LaunchedWorld::join(
                                   request_.launcher, facts_.config, facts_.model.config,
                                   [this] { return abandoned_.load(); }, request_.meeting));
  facts_.world_rank = world->rank();
  facts_.at = world->topology().coordinates_of(world->rank());
  facts_.is_front = world->rank() == 0;
  if (const auto served = serve_rank(*world); !served.ok()) {
    world->abort(served.error());
    return served;
  }
  return world->part();
}

Result<void> EngineThread::serve_rank(LaunchedWorld& world) {
  if (facts_.is_front) {
    CHORUS_TRY(const auto fleet, world.start_fleet(facts_.model.config));
    return serve_on(*fleet);
  }
  enter(Phase::serving);
  return world.serve();
}

}  // namespace chorus::python
