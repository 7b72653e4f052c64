#include "engine.h"

#include <nanobind/nanobind.h>
#include <unistd.h>

#include "launch/ray_replicas.h"
#include "raise.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

constexpr int end_within_ms = 10'000;

Result<void> apply(const std::string& name, const std::optional<std::string>& value, EngineConfig* config) {
  CHORUS_TRY(const EngineOptionMatch match, find_engine_option(name));
  if (match.option->of_serve) {
    return fail(ErrorCode::invalid_argument, "{} is an option of chorus serve: leave it out", name);
  }
  return value ? apply_engine_option(config, name, *value) : Result<void>();
}

}  // namespace

Result<EngineRequest> Engine::read(const std::string& model, const Options& options,
                                   const std::map<std::string, std::string>& environment, const std::string& program,
                                   const std::shared_ptr<Meeting>& meeting) {
  EngineRequest request;
  request.program = program;
  request.config.model = model;
  for (const auto& [name, value] : options) CHORUS_TRY_VOID(apply(name, value, &request.config));
  const auto lookup = [&environment](const std::string& name) {
    const auto found = environment.find(name);
    return found == environment.end() ? std::nullopt : std::optional<std::string>(found->second);
  };
  read_ray_environment(lookup, &request.config);
  if (request.config.distributed_executor_backend == "external_launcher") {
    CHORUS_TRY(request.launcher, detect_launcher(lookup));
    request.config.assignment = AssignmentName::modulo;
    if (meeting) request.meeting = meeting->next();
  }
  return request;
}

Engine::Engine(EngineRequest request, bool streams) {
  std::shared_ptr<EngineWork> work;
  if (streams) {
    work = streams_ = std::make_shared<Streams>();
  } else {
    work = jobs_ = std::make_shared<OfflineJobs>();
  }
  thread_ = std::make_shared<EngineThread>(std::move(request), std::move(work));
}

Engine::~Engine() {
  if (!is_of_this_process()) {
    thread_->stay(thread_);
    return;
  }
  const nb::gil_scoped_release released;
  thread_->stop(true);
  // One that waits for ranks which do not come cannot be interrupted; it ends with the process.
  const bool ended = thread_->wait_until_ended(end_within_ms) == EngineThread::Phase::ended;
  if (!ended) thread_->stay(thread_);
}

void Engine::check_process() const {
  if (is_of_this_process()) return;
  raise(fail(ErrorCode::unavailable,
             "this engine belongs to the process that made it, of which this one (pid {}) is a fork: make an LLM here",
             ::getpid()));
}

bool Engine::wait_until_started(int timeout_ms) const {
  check_process();
  EngineThread::Phase phase{};
  {
    const nb::gil_scoped_release released;
    phase = thread_->wait_until_started(timeout_ms);
  }
  if (const auto failure = thread_->failure()) raise(*failure);
  return phase != EngineThread::Phase::starting;
}

bool Engine::wait_until_ended(int timeout_ms) const {
  if (!is_of_this_process()) return true;
  const nb::gil_scoped_release released;
  return thread_->wait_until_ended(timeout_ms) == EngineThread::Phase::ended;
}

void Engine::stop(bool abandon) const {
  if (is_of_this_process()) thread_->stop(abandon);
}

std::shared_ptr<OfflineJob> Engine::generate(std::vector<GenerationInput> inputs) const {
  check_process();
  auto job = std::make_shared<OfflineJob>(std::move(inputs));
  jobs_->add(job);
  return job;
}

void Engine::add(std::uint64_t number, GenerationInput input, const std::shared_ptr<Mailbox>& mailbox) const {
  check_process();
  streams_->add(number, std::move(input), mailbox);
}

void Engine::abort(std::uint64_t number) const {
  if (is_of_this_process()) streams_->abort(number);
}

}  // namespace chorus::python
