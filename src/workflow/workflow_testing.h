// For the tests of this room: a generator that answers at once, and a folder with a workflow in it. Included by
// *_test.cc alone.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/log.h"
#include "json/json.h"
#include "workflow/workflow.h"

namespace chorus::testing_workflow {

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

}  // namespace chorus::testing_workflow
