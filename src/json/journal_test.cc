#include "json/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace chorus {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

class JournalTest : public testing::Test {
 protected:
  ~JournalTest() override { fs::remove(path_); }
  Result<Journal> open(const std::string& fingerprint = "f", std::int64_t now = 7) const {
    return Journal::open(path_, fingerprint, now);
  }
  void write(const std::vector<std::string>& lines) const {
    auto journal = open();
    ASSERT_TRUE(journal.ok()) << journal.error().message;
    for (const std::string& line : lines) ASSERT_TRUE(journal->append(line).ok());
  }
  std::string text() const {
    std::ostringstream all;
    all << std::ifstream(path_).rdbuf();
    return all.str();
  }

  const std::string path_ = (fs::path(testing::TempDir()) / fmt::format("journal_{}", ::getpid())).string();
};

TEST_F(JournalTest, KeepsLinesAndTheTimeForTheSameFingerprint) {
  write({"1", "2"});
  const auto again = open("f", 9);
  ASSERT_TRUE(again.ok());
  EXPECT_THAT(again->lines(), ElementsAre("1", "2"));
  EXPECT_EQ(again->begun_unix_s(), 7);
  EXPECT_FALSE(again->other_fingerprint());
}

TEST_F(JournalTest, DropsLinesOfAnotherFingerprintAndTellsIt) {
  write({"1"});
  const auto other = open("g", 9);
  ASSERT_TRUE(other.ok());
  EXPECT_THAT(other->lines(), IsEmpty());
  EXPECT_EQ(other->other_fingerprint(), "f");
  EXPECT_EQ(other->begun_unix_s(), 9);
}

TEST_F(JournalTest, WithoutWorkTheTimeIsNow) {
  write({});
  EXPECT_EQ(open("f", 9)->begun_unix_s(), 9);
}

TEST_F(JournalTest, DropsALineThatWasCutOffAndGoesOnInItsPlace) {
  write({"1", "2"});
  fs::resize_file(path_, fs::file_size(path_) - 1);
  {
    auto cut = open();
    ASSERT_TRUE(cut.ok());
    EXPECT_THAT(cut->lines(), ElementsAre("1"));
    ASSERT_TRUE(cut->append("3").ok());
  }
  EXPECT_THAT(open()->lines(), ElementsAre("1", "3"));
}

TEST_F(JournalTest, KeepsAsManyLinesAsItIsTold) {
  write({"first", "2", "3"});
  {
    auto journal = open("f", 9);
    ASSERT_TRUE(journal->keep(1, 9).ok());
    EXPECT_EQ(journal->begun_unix_s(), 7);
    ASSERT_TRUE(journal->append("4").ok());
  }
  EXPECT_THAT(open()->lines(), ElementsAre("first", "4"));
}

TEST_F(JournalTest, KeepingNothingBeginsAnew) {
  write({"1"});
  {
    auto journal = open("f", 9);
    ASSERT_TRUE(journal->keep(0, 9).ok());
    EXPECT_EQ(journal->begun_unix_s(), 9);
    ASSERT_TRUE(journal->append("2").ok());
  }
  const auto again = open("f", 11);
  EXPECT_THAT(again->lines(), ElementsAre("2"));
  EXPECT_EQ(again->begun_unix_s(), 9);
}

TEST_F(JournalTest, AnythingElseInTheFileIsDropped) {
  for (const char* text :
       {"", "\n", "not JSON\n1\n", "[]\n1\n", "{\"fingerprint\":1,\"now\":2}\n1\n", "{\"now\":2}\n1\n"}) {
    std::ofstream(path_) << text;
    const auto journal = open("f", 9);
    ASSERT_TRUE(journal.ok()) << text;
    EXPECT_THAT(journal->lines(), IsEmpty()) << text;
    EXPECT_EQ(this->text(), "{\"fingerprint\":\"f\",\"now\":9}\n");
  }
}

TEST_F(JournalTest, ASecondOneIsRefused) {
  const auto first = open();
  const auto second = open();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace chorus
