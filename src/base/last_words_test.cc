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

[[noreturn]] void end_by_bad_alloc() {
  install_last_words();
  []() noexcept { throw std::bad_alloc(); }();
  std::abort();
}

[[noreturn]] void end_by_system_error() {
  install_last_words();
  []() noexcept { throw std::system_error(EAGAIN, std::generic_category(), "pthread_create"); }();
  std::abort();
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
