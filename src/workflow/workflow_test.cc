#include "workflow/workflow.h"

#include "workflow/workflow_testing.h"

namespace chorus::testing_workflow {
namespace {

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

}  // namespace
}  // namespace chorus::testing_workflow
