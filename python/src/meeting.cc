#include "meeting.h"

#include <fmt/format.h>

#include <utility>

namespace chorus::python {
namespace {

// Ranks wait for each other's programs, which may do anything between two calls.
constexpr int exchange_timeout_ms = 30 * 60'000;

}  // namespace

Result<std::shared_ptr<Meeting>> Meeting::open(const std::map<std::string, std::string>& environment,
                                               const std::string& key_file, int timeout_ms) {
  auto meeting = std::make_shared<Meeting>();
  meeting->timeout_ms_ = timeout_ms;
  CHORUS_TRY(meeting->environment_, detect_launcher([&environment](const std::string& name) {
               const auto found = environment.find(name);
               return found == environment.end() ? std::nullopt : std::optional<std::string>(found->second);
             }));
  if (meeting->environment_.launcher == Launcher::none) {
    return fail(
        ErrorCode::invalid_argument,
        "distributed_executor_backend is external_launcher, but no launcher started this process: use torchrun, "
        "mpirun or srun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT");
  }
  if (!key_file.empty()) {
    CHORUS_TRY(meeting->key_, ClusterKey::read(key_file));
  }
  CHORUS_TRY(meeting->place_, open_meeting_place(meeting->environment_, meeting->key_, timeout_ms));
  return meeting;
}

std::shared_ptr<Store> Meeting::next() {
  return make_prefix_store(place_.store, fmt::format("python/{}", worlds_++));
}

Result<std::shared_ptr<Transport>> Meeting::join() {
  JoinOptions options;
  options.timeout_ms = timeout_ms_;
  options.exchange_timeout_ms = exchange_timeout_ms;
  options.key = key_;
  return join_world(next(), rank(), world_size(), options);
}

}  // namespace chorus::python
