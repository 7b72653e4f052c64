// One child process with a socket to it: start, watch, end, reap. What the fleet does to an engine, and nothing of
// engines.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/exit_status.h"
#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

// A path that starts the running program again, whatever has become of its file.
inline constexpr const char* this_program = "/proc/self/exe";

class ChildProcess {
 public:
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), last_pid_(other.last_pid_), pidfd_(std::move(other.pidfd_)) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    std::swap(last_pid_, other.last_pid_);
    std::swap(pidfd_, other.pidfd_);
    std::swap(out_of_memory_kills_before_, other.out_of_memory_kills_before_);
    return *this;
  }
  // One that still runs is killed and reaped (waits for its end, which SIGKILL makes short).
  ~ChildProcess();

  // Runs this executable again with argv = {`name`}. The child has `socket` as descriptor `socket_fd`, stdin from
  // /dev/null, stdout where stderr goes, and no other descriptor of this process; signals at their defaults.
  static Result<ChildProcess> spawn(const std::string& name, const UniqueFd& socket, int socket_fd);
  // Runs another program so. Whether it ends with this process is its own business.
  static Result<ChildProcess> spawn_program(const std::string& program, const std::string& name, const UniqueFd& socket,
                                            int socket_fd);

  int pid() const { return pid_; }
  int last_pid() const { return last_pid_; }  // also after its end
  // Readable once the process has ended. For poll(2).
  int pidfd() const { return pidfd_.get(); }
  bool running() const { return pid_ > 0; }
  void kill();
  // Waits at most timeout_ms (0: only looks) for the end and reaps; nullopt: it still runs. To be given once.
  std::optional<ExitStatus> reap(int timeout_ms);

 private:
  int pid_ = 0;  // 0: none, or reaped
  int last_pid_ = 0;
  UniqueFd pidfd_;
  std::optional<std::uint64_t> out_of_memory_kills_before_;  // when it was started
};

// Becomes readable when the process ends; invalid (errno) if there is none.
UniqueFd open_pidfd(int pid);

// "was killed by SIGKILL", "exited with status 2".
std::string describe(const ExitStatus& status);

}  // namespace chorus
