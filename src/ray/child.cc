#include "ray/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace chorus::ray_launcher {
namespace {

constexpr int exit_not_started = 127;

// Between fork and exec only what a signal handler may do: other threads may hold any lock.
[[noreturn]] void become(char* const* argv, const ChildOptions& options, int null, pid_t parent) {
  struct sigaction fallback {};
  fallback.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &fallback, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (options.own_group) ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, options.death_signal);
  // The parent may have died before the prctl: then the signal will never come.
  if (::getppid() != parent) ::_exit(exit_not_started);
  ::dup2(null, STDIN_FILENO);
  if (options.output >= 0) {
    ::dup2(options.output, STDOUT_FILENO);
    ::dup2(options.output, STDERR_FILENO);
  }
  ::syscall(SYS_close_range, 3U, ~0U, 0U);
  ::execv(argv[0], argv);
  static constexpr char words[] = "cannot be started: no such program, or not executable\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, words, sizeof words - 1);
  ::_exit(exit_not_started);
}

}  // namespace

pid_t start_child(const std::vector<std::string>& command, const ChildOptions& options) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  // Ignored, as a raylet leaves it to its workers, the kernel would forget how a child ended.
  ::signal(SIGCHLD, SIG_DFL);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  const int error = errno;
  if (child == 0) become(argv.data(), options, null, parent);
  if (null >= 0) ::close(null);
  if (child < 0) throw std::runtime_error("fork: " + std::string(std::strerror(error)));
  return child;
}

bool has_ended(pid_t child, int* status) {
  while (true) {
    const pid_t ended = ::waitpid(child, status, WNOHANG);
    if (ended < 0 && errno == EINTR) continue;
    if (ended < 0) *status = 0x100;  // somebody else has waited for it: status 1
    return ended != 0;
  }
}

}  // namespace chorus::ray_launcher
