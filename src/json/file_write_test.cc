#include "json/file_write.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

namespace chorus {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class FileWrite : public testing::Test {
 protected:
  FileWrite() { fs::create_directories(root_); }
  ~FileWrite() override { fs::remove_all(root_); }
  std::string path(const std::string& name) const { return (root_ / name).string(); }
  static void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

 private:
  const fs::path root_ = fs::path(testing::TempDir()) / fmt::format("file_write_{}", ::getpid());
};

TEST_F(FileWrite, ASecondLockIsRefusedAndNamesTheHolder) {
  const auto first = open_locked(path("a"));
  ASSERT_TRUE(first.ok());
  const auto second = open_locked(path("a"));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::unavailable);
  EXPECT_THAT(
      second.error().message,
      AllOf(HasSubstr(path("a")), HasSubstr(fmt::format("another run is writing here (process {})", ::getpid()))));
  ::close(*first);
  const auto third = open_locked(path("a"));
  ASSERT_TRUE(third.ok()) << third.error().message;
  ::close(*third);
}

TEST_F(FileWrite, ALockedFileKeepsWhatItHolds) {
  write(path("a"), "kept");
  const auto file = open_locked(path("a"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(fs::file_size(path("a")), 4U);
  ::close(*file);
}

TEST_F(FileWrite, TellsWhetherTheNameIsStillTheFiles) {
  const auto file = open_locked(path("a"));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(is_still_named(*file, path("a")));
  fs::rename(path("a"), path("b"));
  EXPECT_FALSE(is_still_named(*file, path("a")));
  write(path("a"), "another");
  EXPECT_FALSE(is_still_named(*file, path("a")));
  EXPECT_TRUE(is_still_named(*file, path("b")));
  ::close(*file);
}

TEST_F(FileWrite, RefusesAnOutputThatIsAnInputUnderAnyName) {
  write(path("in"), "prompts");
  write(path("other"), "prompts");
  fs::create_hard_link(path("in"), path("hard"));
  fs::create_symlink(path("in"), path("soft"));
  for (const char* output : {"in", "hard", "soft"}) {
    const auto refused = refuse_overwriting(path(output), {"", path("other"), path("in")});
    ASSERT_FALSE(refused.ok()) << output;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr(path(output)), HasSubstr(path("in"))));
  }
  EXPECT_TRUE(refuse_overwriting(path("other"), {path("in")}).ok());
  EXPECT_TRUE(refuse_overwriting(path("new"), {path("in")}).ok());
  EXPECT_TRUE(refuse_overwriting("/dev/null", {"/dev/null"}).ok());
}

TEST_F(FileWrite, EachCauseHasItsOwnWords) {
  struct Expected {
    int error_number;
    ErrorCode code;
    const char* advice;
  };
  for (const Expected& cause : {Expected{ENOSPC, ErrorCode::resource_exhausted, "make room"},
                                Expected{EFBIG, ErrorCode::resource_exhausted, "ulimit -f"},
                                Expected{ENOENT, ErrorCode::invalid_argument, "folder is not there"},
                                Expected{ENOTDIR, ErrorCode::invalid_argument, "a file where a folder must be"},
                                Expected{EISDIR, ErrorCode::invalid_argument, "a folder of that name"},
                                Expected{EACCES, ErrorCode::invalid_argument, "rights"},
                                Expected{EROFS, ErrorCode::invalid_argument, "read-only"},
                                Expected{EBADF, ErrorCode::invalid_argument, "closed before the start"}}) {
    const Error error = file_error("open", "/x", cause.error_number);
    EXPECT_EQ(error.code, cause.code) << error.message;
    EXPECT_THAT(error.message, AllOf(HasSubstr("/x: open: "), HasSubstr(cause.advice)));
    EXPECT_EQ(error.message.find("make room") != std::string::npos, cause.error_number == ENOSPC);
  }
}

}  // namespace
}  // namespace chorus
