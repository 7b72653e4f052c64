#include "worker/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "worker/memory_events.h"

namespace chorus {
namespace {

// After SIGKILL a process ends when its pages are freed; a large one takes a moment.
constexpr int killed_wait_ms = 10'000;

// The attributes and file actions of posix_spawn(3), freed at the end of the scope.
struct SpawnSettings {
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
};

// First error number of the calls, 0 if all went well.
int prepare(SpawnSettings* settings, int socket, int socket_fd) {
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  int error = posix_spawnattr_setflags(&settings->attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  if (error == 0) error = posix_spawnattr_setsigmask(&settings->attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(&settings->attributes, &all);
  // The socket first: where this process has no stdin or stdout it may be descriptor 0 or 1 itself.
  if (error == 0) error = posix_spawn_file_actions_adddup2(&settings->actions, socket, socket_fd);
  if (error == 0) error = posix_spawn_file_actions_addopen(&settings->actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (error == 0) error = posix_spawn_file_actions_adddup2(&settings->actions, STDERR_FILENO, STDOUT_FILENO);
  if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&settings->actions, socket_fd + 1);
  return error;
}

}  // namespace

// glibc 2.36 declares pidfd_open() without C linkage, which C++ cannot link.
UniqueFd open_pidfd(int pid) {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

ChildProcess::~ChildProcess() {
  if (!running()) return;
  kill();
  reap(killed_wait_ms);
}

Result<ChildProcess> ChildProcess::spawn(const std::string& name, const UniqueFd& socket, int socket_fd) {
  return spawn_program(this_program, name, socket, socket_fd);
}

Result<ChildProcess> ChildProcess::spawn_program(const std::string& program, const std::string& name,
                                                 const UniqueFd& socket, int socket_fd) {
  const auto kills_before = out_of_memory_kills();
  SpawnSettings settings;
  int error = prepare(&settings, socket.get(), socket_fd);
  std::string argument = name;
  char* argv[] = {argument.data(), nullptr};
  pid_t pid = 0;
  if (error == 0) {
    error = posix_spawn(&pid, program.c_str(), &settings.actions, &settings.attributes, argv, environ);
  }
  if (error != 0) return fail(ErrorCode::unavailable, "cannot start \"{}\": {}", name, std::strerror(error));
  ChildProcess child;
  child.out_of_memory_kills_before_ = kills_before;
  child.pid_ = child.last_pid_ = pid;
  child.pidfd_ = open_pidfd(pid);
  if (!child.pidfd_.valid())
    return fail(ErrorCode::unavailable, "pidfd_open of \"{}\": {}", name, std::strerror(errno));
  return child;
}

void ChildProcess::kill() {
  // By pid, not by pidfd, so that it works when pidfd_open failed; the pid is ours until it is reaped.
  if (running()) ::kill(pid_, SIGKILL);
}

std::optional<ExitStatus> ChildProcess::reap(int timeout_ms) {
  if (!running()) return std::nullopt;
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{timeout_ms} * 1'000'000;
  while (true) {
    int status = 0;
    const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    if (ended < 0 && errno == EINTR) continue;
    if (ended != 0) {
      pid_ = 0;
      pidfd_.reset();
      // ECHILD: somebody ignores SIGCHLD, so the kernel has reaped it and forgotten how it ended.
      if (ended < 0) return ExitStatus{1, 0};
      if (!WIFSIGNALED(status)) return ExitStatus{WEXITSTATUS(status), 0};
      const auto kills = out_of_memory_kills();
      const bool more_kills = kills && out_of_memory_kills_before_ && *kills > *out_of_memory_kills_before_;
      return ExitStatus{0, WTERMSIG(status), WTERMSIG(status) == SIGKILL && more_kills};
    }
    const Nanoseconds left = deadline - monotonic_now();
    if (left <= 0) return std::nullopt;
    pollfd item{pidfd_.get(), POLLIN, 0};
    ::poll(&item, 1, pidfd_.valid() ? static_cast<int>((left + 999'999) / 1'000'000) : 1);
  }
}

std::string describe(const ExitStatus& status) {
  if (status.signal == 0) return fmt::format("exited with status {}", status.code);
  if (status.out_of_memory) {
    return "was killed by SIGKILL: by the kernel, because the memory limit of its cgroup or machine was reached "
           "(memory.events of the cgroup, dmesg); give a smaller --kv-cache-memory or fewer replicas";
  }
  if (status.signal == SIGKILL) {
    return "was killed by SIGKILL (where nobody did that: by the kernel for want of memory; see dmesg and "
           "memory.events "
           "of its cgroup)";
  }
  const char* name = ::sigabbrev_np(status.signal);
  return name == nullptr ? fmt::format("was killed by signal {}", status.signal)
                         : fmt::format("was killed by SIG{}", name);
}

}  // namespace chorus
