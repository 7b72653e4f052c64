#include "cli/row_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/row_reader.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const RowDependencies same = {{"model", "m"}, {"seed", "1"}};

class RowsTest : public testing::Test {
 protected:
  RowsTest() { fs::create_directories(root_); }
  ~RowsTest() override { fs::remove_all(root_); }

  std::string path(const std::string& name) const { return (root_ / name).string(); }
  std::string output() const { return path("out.jsonl"); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }
  std::string read(const std::string& name) const {
    std::ostringstream all;
    all << std::ifstream(path(name)).rdbuf();
    return all.str();
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_)) names.push_back(entry.path().filename().string());
    return names;
  }
  std::unique_ptr<RowOutput> open(const RowDependencies& dependencies = same) const {
    auto opened = RowOutput::open(output(), {}, dependencies);
    EXPECT_TRUE(opened.ok()) << opened.error().message;
    return opened.ok() ? std::move(*opened) : nullptr;
  }

  const fs::path root_ = fs::path(testing::TempDir()) / fmt::format("rows_{}", ::getpid());
};

std::string input_line(std::size_t row) {
  return fmt::format("{{\"prompt\": \"row {}\"}}\n", row);
}
std::string output_line(std::size_t row) {
  return fmt::format("{{\"row\": {}, \"text\": \"{}\"}}\n", row, std::string(row % 50, 'x'));
}
std::string lines(const std::function<std::string(std::size_t)>& line, std::size_t rows) {
  std::string all;
  for (std::size_t row = 0; row < rows; ++row) all += line(row);
  return all;
}

// Does rows [reader.rows(), end): what generate does.
void do_rows(RowReader& reader, RowOutput& output, std::size_t end) {
  while (reader.rows() < end) {
    const std::size_t index = reader.rows();
    auto row = reader.next();
    ASSERT_TRUE(row.ok() && row->has_value()) << index;
    ASSERT_TRUE(output.write(output_line(index), (*row)->hash, index % 10 == 0).ok());
  }
  ASSERT_TRUE(output.flush().ok());
}

class ResumedRows : public RowsTest {
 protected:
  static constexpr std::size_t all_rows = 10'000;
  ResumedRows() { write("in.jsonl", lines(input_line, all_rows)); }

  RowReader reader() {
    auto reader = RowReader::open(prompts_, path("in.jsonl"), chat_, {});
    EXPECT_TRUE(reader.ok()) << reader.error().message;
    return std::move(*reader);
  }
  // A process that does `rows` rows and then what `end` says.
  void run_in_child(std::size_t rows, const std::function<void(RowOutput&)>& end) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      RowReader rows_in = reader();
      const auto out = open();
      auto records = rows_in.skip(out->found());
      if (!records.ok() || !out->go_on_after(*records).ok()) ::_exit(1);
      do_rows(rows_in, *out, rows);
      end(*out);
      ::_exit(testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE((WIFEXITED(status) && WEXITSTATUS(status) == 0) || WIFSIGNALED(status)) << status;
  }
  void kill_after(std::size_t rows) {
    run_in_child(rows, [](RowOutput&) { ::raise(SIGKILL); });
  }
  // The rows of the last record among the first `rows`. It comes after 4,096 rows and what waits to be written, or
  // after a second: in a fast run by rows alone.
  std::size_t recorded(std::size_t rows) const {
    std::ifstream journal(path("out.jsonl.partial.journal"));
    std::size_t last = 0;
    for (std::string line; std::getline(journal, line);) {
      const auto record = nlohmann::json::parse(line);
      if (record.contains("rows") && record["rows"] <= rows) last = record["rows"];
    }
    EXPECT_GT(last, 0U);
    EXPECT_GE(last + 5'500, rows);
    return last;
  }
  // The rows that a run of today keeps; it finishes the others.
  std::size_t finish(std::size_t rows = all_rows) {
    RowReader rows_in = reader();
    const auto out = open();
    const auto records = rows_in.skip(out->found());
    EXPECT_TRUE(records.ok());
    EXPECT_TRUE(out->go_on_after(*records).ok());
    const std::size_t kept = rows_in.rows();
    do_rows(rows_in, *out, rows);
    EXPECT_EQ(out->failed(), (rows + 9) / 10);
    EXPECT_TRUE(out->commit().ok());
    EXPECT_EQ(read("out.jsonl"), lines(output_line, rows));
    EXPECT_THAT(files(), UnorderedElementsAre("in.jsonl", "out.jsonl"));
    return kept;
  }

  std::vector<std::string> prompts_;
  ChatFormat chat_;
};

TEST_F(ResumedRows, AnUndisturbedRunLeavesTheOutputAlone) {
  EXPECT_EQ(finish(), 0U);
}

TEST_F(ResumedRows, AKilledProcessLosesWhatWasNotRecorded) {
  kill_after(100);  // in its first second, if the machine is not busy
  EXPECT_LE(finish(), 100U);
  kill_after(9'000);
  const std::size_t kept = recorded(9'000);
  EXPECT_EQ(finish(), kept);
}

TEST_F(ResumedRows, ManyKillsOneAfterAnother) {
  for (const std::size_t rows : {4'500, 4'600, 9'000, 9'001}) kill_after(rows);
  const std::size_t kept = recorded(9'001);
  EXPECT_EQ(finish(), kept);
}

TEST_F(ResumedRows, ARunThatEndsEarlyKeepsEveryRowAndSaysSo) {
  run_in_child(1'234, [](RowOutput& output) {
    const Error error = output.end_early(fail(ErrorCode::cancelled, "interrupted"));
    EXPECT_THAT(error.message, HasSubstr("interrupted; 1234 finished rows are kept in "));
    EXPECT_THAT(error.message, HasSubstr("out.jsonl.partial: the same command goes on after them"));
    EXPECT_EQ(error.code, ErrorCode::cancelled);
  });
  EXPECT_EQ(finish(), 1'234U);
}

TEST_F(ResumedRows, ARunWithoutAFinishedRowLeavesNothing) {
  {
    const auto out = open();
    ASSERT_TRUE(out->go_on_after(0).ok());
    EXPECT_EQ(out->end_early(fail(ErrorCode::cancelled, "interrupted")).message, "interrupted");
  }
  EXPECT_THAT(files(), UnorderedElementsAre("in.jsonl"));
}

// Goal: what was there stays if the command fails before it knows the input.
TEST_F(ResumedRows, OpeningAloneDropsNothing) {
  run_in_child(500, [](RowOutput& output) { (void)output.end_early(fail(ErrorCode::cancelled, "")); });
  open();
  EXPECT_EQ(finish(), 500U);
}

TEST_F(ResumedRows, ATornTailIsCut) {
  run_in_child(500, [](RowOutput& output) { (void)output.end_early(fail(ErrorCode::cancelled, "")); });
  std::ofstream(path("out.jsonl.partial"), std::ios::app) << "{\"row\": 500, \"te";
  std::ofstream(path("out.jsonl.partial.journal"), std::ios::app) << "{\"rows\": 500, \"by";
  EXPECT_EQ(finish(), 500U);
}

// Goal: whatever a crash of the machine has left out of order, no byte that was not written for its row is kept.
TEST_F(ResumedRows, BytesThatWereLostAreWrittenAgain) {
  kill_after(9'000);
  fs::resize_file(path("out.jsonl.partial"), fs::file_size(path("out.jsonl.partial")) / 2);
  const std::string left = read("out.jsonl.partial");
  const std::size_t whole = recorded(static_cast<std::size_t>(std::ranges::count(left, '\n')));
  EXPECT_LE(whole, 4'600U);
  EXPECT_EQ(finish(), whole);

  kill_after(9'000);
  std::fstream(path("out.jsonl.partial")).write("?", 1);
  EXPECT_EQ(finish(), 0U);
}

TEST_F(ResumedRows, RecordsThatAreNoneEndTheList) {
  for (const char* line :
       {"", "x", "[]", "{\"rows\":-1}", "{\"rows\":9000,\"failed\":1,\"bytes\":\"2\",\"input\":\"\",\"output\":\"\"}",
        "{\"rows\":1,\"failed\":0,\"bytes\":18446744073709551615,\"input\":\"\",\"output\":\"\"}"}) {
    run_in_child(500, [](RowOutput& output) { (void)output.end_early(fail(ErrorCode::cancelled, "")); });
    std::ofstream(path("out.jsonl.partial.journal"), std::ios::app) << line << "\n";
    EXPECT_EQ(finish(), 500U) << line;
  }
}

TEST_F(ResumedRows, WithoutThePartialFileOrTheJournalTheWorkBeginsAnew) {
  for (const char* removed : {"out.jsonl.partial", "out.jsonl.partial.journal"}) {
    kill_after(9'000);
    fs::remove(path(removed));
    EXPECT_EQ(finish(), 0U) << removed;
  }
}

TEST_F(ResumedRows, OtherDependenciesBeginAnewAndAreNamed) {
  kill_after(9'000);
  testing::internal::CaptureStderr();
  const auto other = open({{"model", "m"}, {"seed", "2"}, {"metrics", "true"}});
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("starting anew, since these differ from the run that wrote it: seed, metrics"));
  EXPECT_THAT(other->found(), IsEmpty());
}

TEST_F(ResumedRows, RowsBeforeAChangeOfTheInputAreKept) {
  kill_after(9'000);
  std::string changed = read("in.jsonl");
  changed[changed.find("row 6000")] = 'R';
  write("in.jsonl", changed);
  const std::size_t kept = recorded(6'000);
  EXPECT_EQ(finish(), kept);

  kill_after(9'000);
  changed[changed.find("row 0")] = 'R';
  write("in.jsonl", changed);
  EXPECT_EQ(finish(), 0U);
}

TEST_F(ResumedRows, RowsThatWereAddedBehindAreDone) {
  kill_after(9'000);
  write("in.jsonl", lines(input_line, all_rows + 100));
  const std::size_t kept = recorded(9'000);
  EXPECT_EQ(finish(all_rows + 100), kept);
}

TEST_F(ResumedRows, AnInputThatBecameShorter) {
  kill_after(9'000);
  write("in.jsonl", lines(input_line, 5'000));
  const std::size_t kept = recorded(5'000);
  EXPECT_EQ(finish(5'000), kept);
}

TEST_F(ResumedRows, BlankLinesAreNoRows) {
  kill_after(9'000);
  write("in.jsonl", "\xef\xbb\xbf\n\n" + lines([](std::size_t row) { return input_line(row) + " \r\n"; }, all_rows));
  const std::size_t kept = recorded(9'000);
  EXPECT_EQ(finish(), kept);
}

TEST_F(ResumedRows, PromptsOfTheCommandLineAreRowsToo) {
  prompts_ = {"a", "b"};
  run_in_child(500, [](RowOutput& output) { (void)output.end_early(fail(ErrorCode::cancelled, "")); });
  prompts_ = {"a", "c"};
  EXPECT_EQ(finish(all_rows + 2), 0U);
  prompts_ = {"a", "b"};
  run_in_child(500, [](RowOutput& output) { (void)output.end_early(fail(ErrorCode::cancelled, "")); });
  EXPECT_EQ(finish(all_rows + 2), 500U);
}

// Goal: a full disk keeps the rows that were on it. Method: the limit of a file's size, which the output passes.
TEST_F(ResumedRows, AFullDiskKeepsWhatFits) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    RowReader rows = reader();
    const auto out = open();
    if (!out->go_on_after(0).ok()) ::_exit(2);
    Result<void> wrote;
    for (std::size_t row = 0; wrote.ok() && row < all_rows; ++row)
      wrote = out->write(output_line(row), (*rows.next())->hash, row % 10 == 0);
    if (wrote.ok()) ::_exit(3);
    const std::string said = out->end_early(wrote.error()).message;
    ::_exit(said.find("File too large") != std::string::npos && said.find("finished rows are kept") != std::string::npos
                ? 0
                : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  const std::size_t kept = finish();
  EXPECT_GT(kept, 500U);
  EXPECT_LT(kept, 2'500U);
}

TEST_F(RowsTest, ADeviceHasNoJournal) {
  const auto opened = RowOutput::open("/dev/null", {}, same);
  ASSERT_TRUE(opened.ok());
  RowOutput& output = **opened;
  EXPECT_THAT(output.found(), IsEmpty());
  ASSERT_TRUE(output.go_on_after(0).ok());
  ASSERT_TRUE(output.write("x\n", {}, true).ok());
  EXPECT_EQ(output.failed(), 1U);
  EXPECT_EQ(output.end_early(fail(ErrorCode::cancelled, "interrupted")).message, "interrupted");
  ASSERT_TRUE(output.commit().ok());
}

TEST_F(RowsTest, TheJournalIsNotWrittenOverAnInput) {
  write("out.jsonl.partial.journal", "prompts");
  const auto refused = RowOutput::open(output(), {path("out.jsonl.partial.journal")}, same);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("is the input"));
  EXPECT_EQ(read("out.jsonl.partial.journal"), "prompts");
}

}  // namespace
}  // namespace chorus
