#include "base/last_words.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>
#include <system_error>

namespace chorus {
namespace {

// Everything here runs where nothing may be allocated and no lock taken.
void say(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

[[noreturn]] void on_terminate() {
  try {
    if (std::current_exception()) std::rethrow_exception(std::current_exception());
    say("chorus: std::terminate() was called\n");
  } catch (const std::bad_alloc&) {
    say("chorus: the system refused memory: see ulimit -v and the memory limit of its cgroup; with a smaller "
        "--kv-cache-memory, --max-num-seqs or fewer workers it needs less\n");
    ::_exit(1);
  } catch (const std::system_error& error) {
    say("chorus: the system refused a thread or another resource (");
    say(error.what());
    say("): see ulimit -u, ulimit -v and pids.max of its cgroup; with a smaller --threads or fewer workers it needs "
        "less\n");
    ::_exit(1);
  } catch (const std::exception& error) {
    say("chorus: an exception that nothing caught: ");
    say(error.what());
    say("\n");
  } catch (...) {
    say("chorus: an exception that nothing caught\n");
  }
  ::abort();
}

// Reads "7f00-7fff r--s 0 00:01 42   /path" lines as bytes: the path of the mapping that holds `address`.
class MappingFinder {
 public:
  explicit MappingFinder(std::uintptr_t address) : address_(address) {}
  // True once the line that holds the address is complete.
  bool take(char letter) {
    if (letter == '\n') {
      if (holds()) return true;
      *this = MappingFinder(address_);
    } else if (field_ == 0 && letter == '-') {
      field_ = 1;
    } else if (field_ < 2 && letter != ' ') {
      bound_[field_] =
          bound_[field_] * 16 + static_cast<std::uintptr_t>(letter <= '9' ? letter - '0' : letter - 'a' + 10);
    } else if (field_ < 2) {
      field_ = 2;
    } else if (letter == '/' || length_ > 0) {
      if (length_ < sizeof path_) path_[length_++] = letter;
    }
    return false;
  }
  std::string_view path() const { return {path_, length_}; }

 private:
  bool holds() const { return bound_[0] <= address_ && address_ < bound_[1]; }
  std::uintptr_t address_;
  std::uintptr_t bound_[2] = {0, 0};
  int field_ = 0;
  char path_[512] = {};
  std::size_t length_ = 0;
};

void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
  MappingFinder finder(reinterpret_cast<std::uintptr_t>(info->si_addr));
  const int maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  char buffer[4096];
  bool found = false;
  for (ssize_t got = 0; !found && maps >= 0 && (got = ::read(maps, buffer, sizeof buffer)) > 0;) {
    for (ssize_t i = 0; i < got && !found; ++i) found = finder.take(buffer[i]);
  }
  say("chorus: ");
  say(found && !finder.path().empty() ? finder.path() : "a mapped file");
  say(": cannot be read where it was mapped: it became shorter, or its disk failed, while it was read (SIGBUS); leave "
      "a "
      "model's files as they are while it is loaded, and put a new one beside the old one\n");
  ::_exit(1);
}

}  // namespace

void install_last_words() {
  std::set_terminate(on_terminate);
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace chorus
