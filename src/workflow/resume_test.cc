// Runs that are cut off, and what the next run of the same workflow makes of what they left.
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>

#include "workflow/workflow_testing.h"

namespace chorus::testing_workflow {
namespace {

using ResumeTest = WorkflowTest;

TEST_F(ResumeTest, TimedOutRowsFailAndOthersAreKept) {
  write("data/in.jsonl",
        "{\"id\": 1, \"hero\": \"a\"}\n{\"id\": 2, \"hero\": \"slow\"}\n{\"id\": 3, \"hero\": \"c\"}\n");
  Json tell = tell_node();
  tell["params"]["batch_timeout"] = 2.5;
  const auto report = run(workflow_of({load_node(), tell}));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->failed(), 1u);
  EXPECT_EQ(output()[1]["error"], "batch_timeout: not done within 2.5 s");
  EXPECT_EQ(output()[2]["tell"], "<Tell of c>");
}

TEST_F(ResumeTest, GoesOnWhereItWasCutOff) {
  rows(100);
  log_.batches_left = 2;
  const auto cut = run();
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::unavailable);
  EXPECT_FALSE(fs::exists(root_ / "out/tell.jsonl"));
  // The machine died in the middle of a line.
  std::string journal = read("out/.tell.progress.jsonl");
  write("out/.tell.progress.jsonl", journal.substr(0, journal.size() - 20));
  log_ = {};
  const auto report = run();
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->nodes[0].resumed, 65u);
  ASSERT_EQ(log_.batches.size(), 2u);
  EXPECT_EQ(log_.batches[0][0].row, 65u);
  const std::vector<Json> resumed = output();
  ASSERT_TRUE(run().ok());
  EXPECT_EQ(output(), resumed);
}

// Goal: a run whose rows are all in one batch goes on too. Method: the fleet is lost after 20 of 33 rows, which were
// done in another order than the input's.
TEST_F(ResumeTest, GoesOnInTheMiddleOfABatch) {
  rows(33);
  log_.backwards = true;
  log_.rows_left = 20;
  const auto cut = run();
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::unavailable);
  EXPECT_FALSE(fs::exists(root_ / "out/tell.jsonl"));
  log_ = {};
  const auto report = run();
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->nodes[0].resumed, 20u);
  EXPECT_EQ(log_.answered, (std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  const std::vector<Json> resumed = output();
  ASSERT_TRUE(run().ok());
  EXPECT_EQ(output(), resumed);
}

// Goal: a row is in the journal when it is done, not when its batch or the process ends. Method: a child that dies at
// once (as by kill -9, nothing is flushed or destroyed) before its eighth row.
TEST_F(ResumeTest, AKilledProcessLosesNoFinishedRow) {
  class Suicide : public FakeGenerator {
   public:
    using FakeGenerator::FakeGenerator;
    Result<void> generate_batch(std::span<const PromptRow> rows, std::optional<Nanoseconds> deadline,
                                const OnRow& on_row) override {
      std::size_t left = 7;
      return FakeGenerator::generate_batch(rows, deadline, [&](std::size_t index, RowResult&& result) {
        if (left-- == 0) ::raise(SIGKILL);
        return on_row(index, std::move(result));
      });
    }
  };
  rows(33);
  const auto workflow = parse(workflow_of({load_node(), tell_node()}));
  ASSERT_TRUE(workflow.ok());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto result =
        run_workflow(*workflow, [this](const TextPromptParams&) -> Result<std::unique_ptr<BatchGenerator>> {
          return std::unique_ptr<BatchGenerator>(std::make_unique<Suicide>(&log_));
        });
    ::_exit(result.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  EXPECT_EQ(run()->nodes[0].resumed, 7u);
  EXPECT_EQ(log_.answered.size(), 26u);
  EXPECT_EQ(log_.answered[0], 7u);
}

TEST_F(ResumeTest, InterruptInTheMiddleOfABatchSaysHowFar) {
  rows(33);
  log_.rows_left = 9;
  log_.end_with = fail(ErrorCode::cancelled, "interrupted");
  const auto cut = run();
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::cancelled);
  EXPECT_EQ(cut.error().message, "tell: interrupted after 9 of 33 rows; run again to go on");
  log_ = {};
  EXPECT_EQ(run()->nodes[0].resumed, 9u);
}

// Goal: templates that ask for the time render as in the run that was cut off. Method: a clock a day later.
TEST_F(ResumeTest, ARunThatGoesOnHasTheFirstRunsClock) {
  write("prompts/tell.jinja", "{{ hero }} on {{ strftime_now('%Y-%m-%d') }}");
  rows(3);
  Json judge = tell_node();
  judge["id"] = "judge";
  judge["dependencies"] = {"tell"};
  judge["params"]["name"] = "judgement";
  write("prompts/judgement.txt", "{{ tell }} {{ strftime_now('%d') }}");
  const Json workflow = workflow_of({load_node(), tell_node(), judge});
  WorkflowHooks hooks;
  log_.batches_left = 0;  // an attempt without a row does not set the time
  hooks.now_unix_s = [] { return std::int64_t{1768478400 - 86400}; };
  ASSERT_FALSE(run(workflow, hooks).ok());
  log_ = {};
  hooks.now_unix_s = [] { return std::int64_t{1768478400}; };  // 2026-01-15T12:00:00Z
  log_.rows_left = 1;
  ASSERT_FALSE(run(workflow, hooks).ok());
  log_ = {};
  hooks.now_unix_s = [] { return std::int64_t{1768478400 + 86400}; };
  const auto report = run(workflow, hooks);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->nodes[0].resumed, 1u);
  EXPECT_EQ(output()[0]["tell"], "<h0 on 2026-01-15>");
  EXPECT_EQ(output()[2]["tell"], "<h2 on 2026-01-15>");
  EXPECT_EQ(output("out/judgement.jsonl")[2]["judgement"], "<<h2 on 2026-01-15> 15>");
  EXPECT_EQ(log_.batches[0][0].now_unix_s, 1768478400);  // for the chat template
  ASSERT_TRUE(run(workflow, hooks).ok());
  EXPECT_EQ(output()[0]["tell"], "<h0 on 2026-01-16>");
}

// Goal: a journal is input: lines that this run did not write end nothing and give no output. Method: lines of every
// wrong shape between the first line and a good one; a later node reads what the first one made.
TEST_F(ResumeTest, LinesThatAreNoRowsOfTheRunAreComputedAgain) {
  Json judge = tell_node();
  judge["id"] = "judge";
  judge["dependencies"] = {"tell"};
  judge["params"]["name"] = "judgement";
  write("prompts/judgement.txt", "{{ tell }}");
  const Json workflow = workflow_of({load_node(), tell_node(), judge});
  log_.rows_left = 1;
  ASSERT_FALSE(run(workflow).ok());
  const std::string journal = read("out/.tell.progress.jsonl");
  const std::size_t first_row = journal.find('\n') + 1;
  std::string damaged = journal.substr(0, first_row);
  const char* const whole = R"({"id": 1, "tell": "t", "finish_reason": "stop", "usage": {}, "error": null})";
  for (const char* row : {"-1", "5", "18446744073709551615", "1.0", "\"1\"", "null", "[1]"})
    damaged += fmt::format("{{\"row\": {}, \"line\": {}}}\n", row, whole);
  for (const char* line : {"null", "[]", "{}", R"({"error": null})", R"({"id": 1, "error": null})",
                           R"({"id": 1, "tell": 7, "error": null})",
                           R"({"id": 1, "tell": "t", "finish_reason": 7, "usage": {}, "error": null})",
                           R"({"id": 1, "tell": "t", "finish_reason": "stop", "usage": 7, "error": null})",
                           R"({"id": 2, "tell": "t", "finish_reason": "stop", "usage": {}, "error": null})",
                           R"({"id": 1, "tell": "t", "finish_reason": "stop", "usage": {}, "error": 7})"})
    damaged += fmt::format("{{\"row\": 1, \"line\": {}}}\n", line);
  for (const char* line : {"", "null", "7", "{\"row\": 1}", "{\"line\": {}}", "{\"row\": 1, \"line\"", "\xff\xfe"})
    damaged += fmt::format("{}\n", line);
  write("out/.tell.progress.jsonl", damaged + journal.substr(first_row));
  log_ = {};
  const auto report = run(workflow);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->nodes[0].resumed, 1u) << "the good line";
  EXPECT_EQ(report->failed(), 0u);
  EXPECT_EQ(output()[1]["tell"], "<Tell of h1>");
  EXPECT_EQ(output("out/judgement.jsonl")[1]["judgement"], "<<Tell of h1>>");
}

// The first line says whose the journal is and when that began.
TEST_F(ResumeTest, AFirstLineThatIsNoneStartsAfresh) {
  log_.rows_left = 2;
  ASSERT_FALSE(run().ok());
  const std::string journal = read("out/.tell.progress.jsonl");
  const std::size_t end = journal.find('\n');
  const Json first = Json::parse(journal.substr(0, end));
  for (const char* now : {"\"1\"", "1.5", "-1", "null", "[]", "253402300800", "18446744073709551615"}) {
    write("out/.tell.progress.jsonl",
          fmt::format("{{\"fingerprint\": {}, \"now\": {}}}{}", first["fingerprint"].dump(), now, journal.substr(end)));
    log_ = {};
    log_.rows_left = 0;
    ASSERT_FALSE(run().ok());
    EXPECT_EQ(log_.batches.at(0).size(), 5u) << now;
  }
  for (const std::string& line : {std::string("{}"), std::string("[]"), std::string("{\"fingerprint\""),
                                  fmt::format("{{\"fingerprint\": {}}}", first["fingerprint"].dump())}) {
    write("out/.tell.progress.jsonl", line + journal.substr(end));
    log_ = {};
    log_.rows_left = 0;
    ASSERT_FALSE(run().ok());
    EXPECT_EQ(log_.batches.at(0).size(), 5u) << line;
  }
  write("out/.tell.progress.jsonl", journal);
  log_ = {};
  EXPECT_EQ(run()->nodes[0].resumed, 2u);
}

TEST_F(ResumeTest, AnotherProfileStartsAfresh) {
  const Json workflow = workflow_of({load_node(), tell_node()});
  std::string profile = "avx512-bf16/bfloat16";
  WorkflowHooks hooks;
  hooks.profile = [&](const TextPromptParams&) -> Result<std::string> { return profile; };
  log_.rows_left = 2;
  ASSERT_FALSE(run(workflow, hooks).ok());
  log_ = {};
  log_.rows_left = 1;
  ASSERT_FALSE(run(workflow, hooks).ok());
  EXPECT_EQ(log_.answered, (std::vector<std::size_t>{2}));
  log_ = {};
  profile = "avx2-f32/float32";
  EXPECT_EQ(run(workflow, hooks)->nodes[0].resumed, 0u);
  EXPECT_EQ(log_.answered.size(), 5u);
}

TEST_F(ResumeTest, ChangedInputsStartAfresh) {
  rows(100);
  log_.batches_left = 2;
  ASSERT_FALSE(run().ok());
  write("prompts/tell.jinja", "Sing of {{ hero }}");
  log_ = {};
  const auto report = run();
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->nodes[0].resumed, 0u);
  EXPECT_EQ(output()[0]["tell"], "<Sing of h0>");
}

TEST_F(ResumeTest, FailedRowsAreTriedAgainAfterACut) {
  rows(40);
  write("data/in.jsonl", read("data/in.jsonl") + "{\"id\": \"z\", \"hero\": \"last\"}\n");
  std::string text = read("data/in.jsonl");
  text.replace(text.find("\"h3\""), 4, "\"slow\"");
  write("data/in.jsonl", text);
  Json tell = tell_node();
  tell["params"]["batch_timeout"] = 1;
  log_.batches_left = 1;
  ASSERT_FALSE(run(workflow_of({load_node(), tell})).ok());
  log_ = {};
  ASSERT_TRUE(run(workflow_of({load_node(), tell})).ok());
  EXPECT_EQ(log_.batches[0][0].row, 3u);
}

TEST_F(ResumeTest, InterruptKeepsWhatIsDone) {
  rows(100);
  WorkflowHooks hooks;
  std::size_t done = 0;
  hooks.on_progress = [&](const TextPromptParams&, std::size_t now, std::size_t total) {
    done = now;
    EXPECT_EQ(total, 100u);
  };
  hooks.interrupted = [&] { return done >= 66; };
  const auto cut = run(workflow_of({load_node(), tell_node()}), hooks);
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::cancelled);
  EXPECT_EQ(run()->nodes[0].resumed, 66u);
}

TEST_F(ResumeTest, SecondRunAtOnceIsRefused) {
  WorkflowHooks hooks;
  std::string second;
  hooks.on_progress = [&](const TextPromptParams&, std::size_t, std::size_t) { second = run_error(); };
  ASSERT_TRUE(run(workflow_of({load_node(), tell_node()}), hooks).ok());
  EXPECT_THAT(second, HasSubstr("another run is writing here"));
}

TEST_F(ResumeTest, OutputDirectoryThatCannotBeMadeIsAnErrorBeforeTheRun) {
  write("out", "a file");
  EXPECT_THAT(run_error(), HasSubstr("output_dir"));
  EXPECT_TRUE(log_.batches.empty());
  EXPECT_EQ(read("out"), "a file");
}

// Places that the user can choose otherwise are wrong input (exit status 2), and show before anything is generated.
TEST_F(ResumeTest, OutputThatCannotBeWrittenIsAnInvalidArgument) {
  fs::create_directories(root_ / "out/tell.jsonl");
  auto result = run();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(result.error().message, HasSubstr("out/tell.jsonl: is a directory"));
  fs::remove(root_ / "out/tell.jsonl");
  fs::create_directories(root_ / "out/.tell.progress.jsonl");
  result = run();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(result.error().message,
              HasSubstr("Is a directory; there is a folder of that name: remove it, or give another place"));
  EXPECT_TRUE(log_.batches.empty());
  if (::geteuid() == 0) return;  // may write everywhere
  fs::remove(root_ / "out/.tell.progress.jsonl");
  fs::permissions(root_ / "out", fs::perms::owner_read | fs::perms::owner_exec);
  result = run();
  fs::permissions(root_ / "out", fs::perms::owner_all);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
}

// Goal: a full disk leaves no half file and loses no finished row. Method: a limit on the size of files stands for it.
TEST_F(ResumeTest, FullDiskLeavesNothingHalfWritten) {
  rows(1000);
  Json tell = tell_node();
  tell["params"]["batch_size"] = 100;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 100'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto cut = run(workflow_of({load_node(), tell}));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::resource_exhausted);
  EXPECT_FALSE(fs::exists(root_ / "out/tell.jsonl"));
  EXPECT_FALSE(fs::exists(root_ / "out/.tell.jsonl.tmp"));
  const auto report = run(workflow_of({load_node(), tell}));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_GE(report->nodes[0].resumed, 400u);
  EXPECT_EQ(output().size(), 1000u);
}

}  // namespace
}  // namespace chorus::testing_workflow
