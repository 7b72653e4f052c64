#include "base/last_words.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <system_error>

namespace chorus {
namespace {

// Nobody catches it; through a pointer, because the compiler refuses a throw that it sees end the process.
template <typename Exception>
[[noreturn]] void end_by(const Exception& exception) {
  install_last_words();
  void (*volatile throw_it)(const Exception&) = [](const Exception& thrown) { throw thrown; };
  [&]() noexcept { throw_it(exception); }();
  std::abort();
}

[[noreturn]] void end_by_bad_alloc() {
  end_by(std::bad_alloc());
}

[[noreturn]] void end_by_system_error() {
  end_by(std::system_error(EAGAIN, std::generic_category(), "pthread_create"));
}

// Two pages are mapped, the file is cut after the first, the second is read.
[[noreturn]] void end_by_a_shorter_file() {
  install_last_words();
  char path[] = "/tmp/chorus-last-words-XXXXXX";
  const int file = ::mkstemp(path);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  if (file < 0 || ::ftruncate(file, static_cast<off_t>(2 * page)) != 0) std::abort();
  auto* mapped = static_cast<volatile char*>(::mmap(nullptr, 2 * page, PROT_READ, MAP_SHARED, file, 0));
  if (::ftruncate(file, static_cast<off_t>(page)) != 0 || ::unlink(path) != 0) std::abort();
  std::exit(mapped[page] == 0 ? 0 : 2);
}

TEST(LastWords, NameMemoryThatIsRefused) {
  EXPECT_EXIT(end_by_bad_alloc(), testing::ExitedWithCode(1), "chorus: the system refused memory: see ulimit -v");
}

TEST(LastWords, NameAThreadThatIsRefused) {
  EXPECT_EXIT(end_by_system_error(), testing::ExitedWithCode(1), "refused a thread .*pthread_create.*ulimit -u");
}

TEST(LastWords, NameAMappedFileThatBecameShorter) {
  EXPECT_EXIT(end_by_a_shorter_file(), testing::ExitedWithCode(1),
              "chorus: /tmp/chorus-last-words-.*it became shorter");
}

}  // namespace
}  // namespace chorus
