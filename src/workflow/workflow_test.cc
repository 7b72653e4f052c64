#include "workflow/workflow.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/log.h"
#include "json/json.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Answers with the prompt between angle brackets. Rows whose prompt says "slow" are not done by the deadline;
// `batches_left` and `rows_left` end the run like a crash.
class FakeGenerator : public BatchGenerator {
 public:
  struct Log {
    std::vector<std::vector<PromptRow>> batches;
    std::vector<std::size_t> answered;  // rows, in order
    int batches_left = 1'000'000;
    int rows_left = 1'000'000;
    bool backwards = false;  // the last row of a batch is done first
    int ranks = 4;
    std::optional<Error> end_with;  // instead of "the fleet is gone"
  };
  explicit FakeGenerator(Log* log) : log_(log) {}
  int rank_count() const override { return log_->ranks; }
  Result<void> generate_batch(std::span<const PromptRow> rows, std::optional<Nanoseconds> deadline,
                              const OnRow& on_row) override {
    const Error end = log_->end_with.value_or(fail(ErrorCode::unavailable, "the fleet is gone"));
    if (log_->batches_left-- == 0) return end;
    log_->batches.emplace_back(rows.begin(), rows.end());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::size_t index = log_->backwards ? rows.size() - 1 - i : i;
      const PromptRow& row = rows[index];
      if (log_->rows_left-- == 0) return end;
      if (deadline && row.prompt.find("slow") != std::string::npos) continue;
      log_->answered.push_back(row.row);
      RowResult result;
      result.text = "<" + row.prompt + row.messages + ">";
      result.finish_reason = "stop";
      result.prompt_tokens = 2;
      result.completion_tokens = 3;
      result.dp_rank = row.dp_rank;
      CHORUS_TRY_VOID(on_row(index, std::move(result)));
    }
    return {};
  }

 private:
  Log* log_;
};

class WorkflowTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) /
            fmt::format("workflow_{}_{}", ::getpid(), ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    for (const char* directory : {"data", "prompts", "model"}) fs::create_directories(root_ / directory);
    write("prompts/tell.jinja", "Tell of {{ hero }}");
    write("model/config.json", "{}");
    rows(5);
    set_log_level(LogLevel::warning);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::ofstream(root_ / path, std::ios::binary) << text;
  }
  std::string read(const std::string& path) const {
    std::ifstream file(root_ / path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void rows(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += fmt::format("{{\"id\": {}, \"hero\": \"h{}\"}}\n", i, i);
    write("data/in.jsonl", text);
  }

  static Json load_node() {
    return {{"id", "load"}, {"type", "load"}, {"params", {{"input_data_path", "in.jsonl"}, {"primary_key", "id"}}}};
  }
  static Json tell_node() {
    return {
        {"id", "tell"},
        {"type", "text_prompt"},
        {"dependencies", {"load"}},
        {"params",
         {{"name", "tell"},
          {"model_name", "model"},
          {"inference_engine", "vllm_dp"},
          {"batch_size", 33},
          {"engine_options", {{"data_parallel_size", 4}, {"dp_master_port", nullptr}, {"disable_progress_bars", true}}},
          {"generation_options", {{"temperature", 0.7}, {"max_tokens", 8}, {"seed", 1}}}}}};
  }
  static Json workflow_of(const Json& nodes) {
    return {{"name", "w"}, {"data_dir", "data"}, {"output_dir", "out"}, {"prompts_dir", "prompts"}, {"nodes", nodes}};
  }

  Result<Workflow> parse(const Json& workflow) {
    write("w.json", workflow.dump());
    return parse_workflow((root_ / "w.json").string());
  }
  std::string parse_error(const Json& workflow) {
    const auto parsed = parse(workflow);
    return parsed.ok() ? "" : parsed.error().message;
  }
  Result<WorkflowReport> run(const Json& workflow, const WorkflowHooks& hooks = {}) {
    auto parsed = parse(workflow);
    if (!parsed.ok()) return parsed.error();
    const BatchGeneratorFactory factory = [this](const TextPromptParams&) -> Result<std::unique_ptr<BatchGenerator>> {
      return std::unique_ptr<BatchGenerator>(std::make_unique<FakeGenerator>(&log_));
    };
    return run_workflow(*parsed, factory, hooks);
  }
  Result<WorkflowReport> run() { return run(workflow_of({load_node(), tell_node()})); }
  std::string run_error() {
    const auto result = run();
    return result.ok() ? "" : result.error().message;
  }
  std::vector<Json> output(const std::string& path = "out/tell.jsonl") {
    std::vector<Json> lines;
    std::istringstream text(read(path));
    for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  fs::path root_;
  FakeGenerator::Log log_;
};

TEST_F(WorkflowTest, ParsesTheInterfaceExample) {
  const auto parsed = parse(workflow_of({tell_node(), load_node()}));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  ASSERT_EQ(parsed->nodes.size(), 2u);
  EXPECT_EQ(parsed->nodes[0].id, "load");
  const auto& params = std::get<TextPromptParams>(parsed->nodes[1].params);
  EXPECT_EQ(params.engine.parallel.data_parallel_size, 4);
  EXPECT_EQ(params.engine.model, (root_ / "model").string());
  EXPECT_FALSE(params.dp_master_port.has_value());
  EXPECT_TRUE(params.disable_progress_bars);
  EXPECT_EQ(Json::parse(params.generation_options)["max_tokens"], 8);
}

TEST_F(WorkflowTest, WritesALineARecordInInputOrder) {
  const auto report = run();
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->failed(), 0u);
  EXPECT_EQ(
      output()[3].dump(),
      R"({"id":3,"tell":"<Tell of h3>","finish_reason":"stop","usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5},"error":null})");
  EXPECT_EQ(output().size(), 5u);
  EXPECT_EQ(Json::parse(read("out/report.json"))["nodes"][0]["succeeded"], 5);
  EXPECT_FALSE(fs::exists(root_ / "out/.tell.progress.jsonl"));
  EXPECT_FALSE(fs::exists(root_ / "out/.tell.jsonl.tmp"));
}

TEST_F(WorkflowTest, SplitsABatchEvenlyFirstRanksFirst) {
  rows(40);
  ASSERT_TRUE(run().ok());
  ASSERT_EQ(log_.batches.size(), 2u);
  std::vector<int> per_rank(4);
  for (const PromptRow& row : log_.batches[0]) ++per_rank[static_cast<std::size_t>(row.dp_rank)];
  EXPECT_EQ(per_rank, (std::vector<int>{9, 8, 8, 8}));
  EXPECT_EQ(log_.batches[1].size(), 7u);
}

TEST_F(WorkflowTest, BadJsonLineIsNamed) {
  write("data/in.jsonl", "{\"id\": 1, \"hero\": \"a\"}\n\n{\"id\": 2,\n");
  EXPECT_THAT(run_error(), HasSubstr("line 3"));
  EXPECT_FALSE(fs::exists(root_ / "out"));
}

TEST_F(WorkflowTest, PrimaryKeyIsThereAndUnique) {
  write("data/in.jsonl", "{\"id\": 1, \"hero\": \"a\"}\n{\"id\": 2, \"hero\": \"b\"}\n{\"id\": 1, \"hero\": \"c\"}\n");
  EXPECT_THAT(run_error(), HasSubstr("rows 1 and 3 have the same primary key id = 1"));
  write("data/in.jsonl", "{\"id\": 1, \"hero\": \"a\"}\n{\"hero\": \"b\"}\n");
  EXPECT_THAT(run_error(), HasSubstr("row 2 has no primary key \"id\""));
}

TEST_F(WorkflowTest, ReadsArraysAndCsv) {
  Json load = load_node();
  write("data/in.json", R"([{"id": "a", "hero": "x"}, {"id": "b", "hero": "y"}])");
  load["params"]["input_data_path"] = "in.json";
  ASSERT_TRUE(run(workflow_of({load, tell_node()})).ok());
  EXPECT_EQ(output()[1]["tell"], "<Tell of y>");
  write("data/in.csv", "\xef\xbb\xbfid,hero\r\n1,\"Ann, \"\"the\"\"\nBold\"\r\n2,\r\n");
  load["params"]["input_data_path"] = "in.csv";
  ASSERT_TRUE(run(workflow_of({load, tell_node()})).ok());
  EXPECT_EQ(output()[0]["tell"], "<Tell of Ann, \"the\"\nBold>");
  EXPECT_EQ(output()[1]["tell"], "<Tell of >");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"id,hero\n1\n", "line 2: 1 fields"},
      {"id,hero\n1,\"a\nb\n", "line 2: a quote is not closed"},
      {"id,hero\n1,\"a\"b\n", "line 2: text after a closing quote"},
      {"id,id\n1,2\n", "two fields are called \"id\""},
      {"id,hero\n1,\xff\n", "UTF-8"},
      {"", "names of the fields"}};
  for (const auto& [text, message] : bad) {
    write("data/in.csv", text);
    const auto result = run(workflow_of({load, tell_node()}));
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_THAT(result.error().message, HasSubstr(message));
  }
}

TEST_F(WorkflowTest, MissingFieldIsAnErrorOfItsRow) {
  write("data/in.jsonl", "{\"id\": 1, \"hero\": \"a\"}\n{\"id\": 2, \"her\": \"b\"}\n{\"id\": 3, \"hero\": \"c\"}\n");
  const auto report = run();
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->failed(), 1u);
  EXPECT_THAT(output()[1]["error"].get<std::string>(), HasSubstr("'hero' is undefined"));
  EXPECT_TRUE(output()[1]["tell"].is_null());
  EXPECT_EQ(output()[2]["tell"], "<Tell of c>");
}

TEST_F(WorkflowTest, ChatPromptsAreLists) {
  fs::remove(root_ / "prompts/tell.jinja");
  write("prompts/tell.json",
        R"([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "{{ hero }}!"}])");
  ASSERT_TRUE(run().ok());
  EXPECT_EQ(output()[0]["tell"], R"(<[{"role":"system","content":"Be kind."},{"role":"user","content":"h0!"}]>)");
  write("prompts/tell.json", R"([{"role": "system"}])");
  EXPECT_THAT(run_error(), HasSubstr("message 1: \"content\" is missing"));
  fs::remove(root_ / "prompts/tell.json");
  EXPECT_THAT(run_error(), HasSubstr("no prompt template tell.jinja"));
}

TEST_F(WorkflowTest, LaterNodesSeeEarlierOutputs) {
  Json judge = tell_node();
  judge["id"] = "judge";
  judge["dependencies"] = {"tell"};
  judge["params"]["name"] = "judgement";
  write("prompts/judgement.txt", "{{ id }}: {{ tell }}");
  write("data/in.jsonl", "{\"id\": 1, \"hero\": \"a\"}\n{\"id\": 2}\n");
  const auto report = run(workflow_of({judge, load_node(), tell_node()}));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->failed(), 2u);
  EXPECT_EQ(output("out/judgement.jsonl")[0]["judgement"], "<1: <Tell of a>>");
  EXPECT_EQ(output("out/judgement.jsonl")[1]["error"], "tell failed for this row");
}

TEST_F(WorkflowTest, GraphErrorsAreNamed) {
  Json tell = tell_node();
  tell["dependencies"] = {"load", "tell"};
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("the dependencies of tell form a cycle"));
  tell["dependencies"] = {"laod"};
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("did you mean \"load\"?"));
  EXPECT_THAT(parse_error(workflow_of({load_node(), load_node()})), HasSubstr("two nodes have the id \"load\""));
  tell = tell_node();
  tell["type"] = "text_promt";
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("did you mean \"text_prompt\"?"));
  tell = tell_node();
  tell["params"]["batch_sise"] = 3;
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("did you mean \"batch_size\"?"));
  tell = tell_node();
  tell["dependencies"] = Json::array();
  const auto result = run(workflow_of({load_node(), tell}));
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.error().message, HasSubstr("has no records"));
}

TEST_F(WorkflowTest, UnknownOptionsNameTheNearest) {
  Json tell = tell_node();
  tell["params"]["engine_options"]["max_model_length"] = 5;
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("max-model-len"));
  tell = tell_node();
  tell["params"]["engine_options"]["gpus_per_dp_rnak"] = 1;
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("did you mean \"gpus_per_dp_rank\"?"));
  tell = tell_node();
  tell["params"]["generation_options"]["temprature"] = 1;
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("temperature"));
  tell = tell_node();
  tell["params"]["inference_engine"] = "vlm_dp";
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("did you mean \"vllm_dp\"?"));
  tell["params"]["inference_engine"] = "chorus";
  EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("one replica"));
}

TEST_F(WorkflowTest, ParallelSizesFollowTheWorkflow) {
  Json tell = tell_node();
  tell["params"]["engine_options"]["gpus_per_dp_rank"] = 1;
  tell["params"]["engine_options"]["enable_data_parallel"] = false;
  auto parsed = parse(workflow_of({load_node(), tell}));
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(std::get<TextPromptParams>(parsed->nodes[1].params).engine.parallel.world_size(), 1);
  // More than one device a rank is its tensor-parallel size, within what validate() lets run.
  tell["params"]["engine_options"]["gpus_per_dp_rank"] = 2;
  parsed = parse(workflow_of({load_node(), tell}));
  if (parsed.ok()) {
    EXPECT_EQ(std::get<TextPromptParams>(parsed->nodes[1].params).engine.parallel.tensor_parallel_size, 2);
  } else {
    EXPECT_THAT(parsed.error().message, HasSubstr("--tensor-parallel-size"));
  }
}

// Goal: a workflow reads and writes nothing outside its directories.
TEST_F(WorkflowTest, PathsMayNotLeave) {
  Json load = load_node();
  const auto error_for = [&](const std::string& path) {
    load["params"]["input_data_path"] = path;
    return parse_error(workflow_of({load, tell_node()}));
  };
  EXPECT_THAT(error_for("../w.json"), HasSubstr("../w.json has \"..\""));
  EXPECT_THAT(error_for("a/../../w.json"), HasSubstr("has \"..\""));
  EXPECT_THAT(error_for("/etc/passwd"), HasSubstr("/etc/passwd is absolute"));
  write("secret.jsonl", "{\"id\": 1}\n");
  fs::create_symlink(root_ / "secret.jsonl", root_ / "data/link.jsonl");
  EXPECT_THAT(error_for("link.jsonl"), HasSubstr("secret.jsonl, outside of"));
  fs::create_directory_symlink(root_, root_ / "data/up");
  EXPECT_THAT(error_for("up/secret.jsonl"), HasSubstr("outside of"));
  fs::create_symlink("in.jsonl", root_ / "data/inside.jsonl");
  EXPECT_EQ(error_for("inside.jsonl"), "");
  Json tell = tell_node();
  for (const char* name : {"../tell", "a/b", ".hidden", "", "/tmp/x"}) {
    tell["params"]["name"] = name;
    EXPECT_THAT(parse_error(workflow_of({load_node(), tell})), HasSubstr("must be a file name")) << name;
  }
  // A prompt, a journal or an output that is a link to somewhere else.
  write("outside.jinja", "x");
  fs::remove(root_ / "prompts/tell.jinja");
  fs::create_symlink(root_ / "outside.jinja", root_ / "prompts/tell.jinja");
  EXPECT_THAT(run_error(), HasSubstr("outside of"));
  fs::remove(root_ / "prompts/tell.jinja");
  write("prompts/tell.jinja", "x");
  fs::create_directories(root_ / "out");
  write("victim", "precious");
  fs::create_symlink(root_ / "victim", root_ / "out/.tell.progress.jsonl");
  EXPECT_THAT(run_error(), HasSubstr(".tell.progress.jsonl"));
  fs::remove(root_ / "out/.tell.progress.jsonl");
  fs::create_symlink(root_ / "victim", root_ / "out/tell.jsonl");
  EXPECT_EQ(run_error(), "");
  EXPECT_EQ(read("victim"), "precious");
}

TEST_F(WorkflowTest, TimedOutRowsFailAndOthersAreKept) {
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

TEST_F(WorkflowTest, GoesOnWhereItWasCutOff) {
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
TEST_F(WorkflowTest, GoesOnInTheMiddleOfABatch) {
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
TEST_F(WorkflowTest, AKilledProcessLosesNoFinishedRow) {
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

TEST_F(WorkflowTest, InterruptInTheMiddleOfABatchSaysHowFar) {
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
TEST_F(WorkflowTest, ARunThatGoesOnHasTheFirstRunsClock) {
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

TEST_F(WorkflowTest, AnotherProfileStartsAfresh) {
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

TEST_F(WorkflowTest, ChangedInputsStartAfresh) {
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

TEST_F(WorkflowTest, FailedRowsAreTriedAgainAfterACut) {
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

TEST_F(WorkflowTest, InterruptKeepsWhatIsDone) {
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

TEST_F(WorkflowTest, SecondRunAtOnceIsRefused) {
  WorkflowHooks hooks;
  std::string second;
  hooks.on_progress = [&](const TextPromptParams&, std::size_t, std::size_t) { second = run_error(); };
  ASSERT_TRUE(run(workflow_of({load_node(), tell_node()}), hooks).ok());
  EXPECT_THAT(second, HasSubstr("another run is writing here"));
}

TEST_F(WorkflowTest, OutputDirectoryThatCannotBeMadeIsAnErrorBeforeTheRun) {
  write("out", "a file");
  EXPECT_THAT(run_error(), HasSubstr("output_dir"));
  EXPECT_TRUE(log_.batches.empty());
  EXPECT_EQ(read("out"), "a file");
}

// Places that the user can choose otherwise are wrong input (exit status 2), and show before anything is generated.
TEST_F(WorkflowTest, OutputThatCannotBeWrittenIsAnInvalidArgument) {
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
  EXPECT_THAT(result.error().message, HasSubstr("Is a directory; give an output_dir that can be written"));
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
TEST_F(WorkflowTest, FullDiskLeavesNothingHalfWritten) {
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
}  // namespace chorus
