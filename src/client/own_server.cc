#include "client/own_server.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/random_hex.h"

namespace chorus {
namespace {

constexpr std::size_t key_bytes = 32;
constexpr int look_ms = 100;
constexpr int end_timeout_ms = 10'000;
constexpr std::size_t ready_line_bytes_max = 64u << 10;
constexpr const char* this_program = "/proc/self/exe";

std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& changes) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    bool is_changed = false;
    for (const auto& [name, value] : changes) is_changed |= std::string_view(*entry).starts_with(name + "=");
    if (!is_changed) variables.emplace_back(*entry);
  }
  for (const auto& [name, value] : changes) variables.push_back(fmt::format("{}={}", name, value));
  return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// In the child: calls that are safe after fork() alone.
[[noreturn]] void become(char* const* arguments, char* const* environment, int output, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(0);  // it died before the prctl
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (nothing < 0 || ::dup2(nothing, STDIN_FILENO) < 0 || ::dup2(output, STDOUT_FILENO) < 0) ::_exit(1);
  ::execve(this_program, arguments, environment);
  ::_exit(1);
}

bool has_ended(int pid, int* status, int timeout_ms) {
  const Nanoseconds deadline = deadline_after(timeout_ms);
  while (true) {
    const pid_t ended = ::waitpid(pid, status, WNOHANG);
    if (ended == pid || (ended < 0 && errno != EINTR)) return true;
    if (milliseconds_until(deadline) == 0) return false;
    ::poll(nullptr, 0, 10);
  }
}

}  // namespace

OwnServer::OwnServer(OwnServer&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), output_(std::move(other.output_)), endpoint_(std::move(other.endpoint_)) {}

OwnServer::~OwnServer() {
  if (pid_ == 0) return;
  int status = 0;
  ::kill(pid_, SIGTERM);
  if (has_ended(pid_, &status, end_timeout_ms)) return;
  ::kill(pid_, SIGKILL);
  has_ended(pid_, &status, end_timeout_ms);
}

Result<OwnServer> OwnServer::start(const std::vector<std::string>& words, const std::string& log_level,
                                   const std::function<bool()>& stop) {
  OwnServer server;
  CHORUS_TRY_VOID(server.spawn(words, log_level));
  CHORUS_TRY_VOID(server.wait_until_it_serves(stop));
  return server;
}

Result<void> OwnServer::spawn(const std::vector<std::string>& words, const std::string& log_level) {
  CHORUS_TRY(endpoint_.key, random_hex(key_bytes));
  std::vector<std::string> arguments = {"chorus", "serve", "--port", "0", "--shutdown-timeout", "1"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  std::vector<std::string> variables =
      environment_with({{"CHORUS_API_KEY", endpoint_.key}, {"CHORUS_LOG_LEVEL", log_level}});
  const std::vector<char*> argv = pointers_to(arguments);
  const std::vector<char*> envp = pointers_to(variables);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(ErrorCode::internal, "pipe2: {}", std::strerror(errno));
  output_.reset(ends[0]);
  const UniqueFd input(ends[1]);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) become(argv.data(), envp.data(), input.get(), parent);
  if (pid_ > 0) return {};
  pid_ = 0;
  return fail(ErrorCode::unavailable, "cannot start chorus serve: fork: {}", std::strerror(errno));
}

Error OwnServer::ended() {
  int status = 0;
  if (has_ended(std::exchange(pid_, 0), &status, end_timeout_ms) && WIFEXITED(status)) {
    return fail(WEXITSTATUS(status) == 2 ? ErrorCode::invalid_argument : ErrorCode::unavailable,
                "the server that was started ended with status {} before it was ready", WEXITSTATUS(status));
  }
  return fail(ErrorCode::unavailable, "the server that was started was killed before it was ready");
}

// "chorus: serving NAME at http://HOST:PORT (N replicas)"; a name may hold " at ".
Result<void> OwnServer::wait_until_it_serves(const std::function<bool()>& stop) {
  std::string line;
  while (!line.ends_with('\n') && line.size() < ready_line_bytes_max) {
    if (stop()) return fail(ErrorCode::cancelled, "stopped while the model was loading");
    pollfd item{output_.get(), POLLIN, 0};
    if (::poll(&item, 1, look_ms) <= 0) continue;
    char one = 0;
    const ssize_t count = ::read(output_.get(), &one, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return ended();
    line += one;
  }
  const std::size_t begin = line.rfind("http://");
  const std::size_t end = line.rfind(" (");
  if (begin == line.npos || end == line.npos || end < begin) {
    return fail(ErrorCode::internal, "chorus serve said \"{}\" where its URL was to come", line);
  }
  std::string key = std::move(endpoint_.key);
  CHORUS_TRY(endpoint_, parse_url(std::string_view(line).substr(begin, end - begin)));
  endpoint_.key = std::move(key);
  return {};
}

}  // namespace chorus
