#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "config/model_files.h"
#include "json/file.h"
#include "json/file_write.h"
#include "workflow/confined_path.h"
#include "workflow/node_run.h"
#include "workflow/prompt_source.h"
#include "workflow/records.h"
#include "workflow/workflow.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;

// Everything read before anything is generated.
struct Inputs {
  std::map<std::string, std::vector<Json>> records;  // by load node
  std::map<std::string, PromptSource> prompts;       // by text_prompt node
  std::string fingerprint;                           // of the workflow, the data, the templates and the models' files
};

Result<Inputs> load_inputs(const Workflow& workflow) {
  Inputs inputs;
  Digest fingerprint;
  CHORUS_TRY(const std::string source, read_file(workflow.path, 16u << 20));
  fingerprint.add(source);
  for (const WorkflowNode& node : workflow.nodes) {
    if (const auto* load = std::get_if<LoadParams>(&node.params)) {
      CHORUS_TRY(std::vector<Json> records, load_records(*load));
      for (const Json& record : records) fingerprint.add(record.dump());
      inputs.records.emplace(node.id, std::move(records));
    } else {
      const auto& params = std::get<TextPromptParams>(node.params);
      CHORUS_TRY(PromptSource prompt, PromptSource::load(workflow.prompts_dir, params.name));
      fingerprint.add(prompt.content());
      fingerprint.add(params.engine.model);
      fingerprint.add(model_files_digest(params.engine.model));
      inputs.prompts.emplace(node.id, std::move(prompt));
    }
  }
  inputs.fingerprint = fingerprint.text();
  return inputs;
}

const WorkflowNode& node_of(const Workflow& workflow, const std::string& id) {
  return *std::ranges::find(workflow.nodes, id, &WorkflowNode::id);
}

// All nodes that `node` depends on, directly or not, in the workflow's order.
std::vector<const WorkflowNode*> ancestors_of(const Workflow& workflow, const WorkflowNode& node) {
  std::vector<std::string> ids = node.dependencies;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (const std::string& id : node_of(workflow, ids[i]).dependencies) {
      if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
    }
  }
  std::vector<const WorkflowNode*> nodes;
  for (const WorkflowNode& candidate : workflow.nodes) {
    if (std::ranges::find(ids, candidate.id) != ids.end()) nodes.push_back(&candidate);
  }
  return nodes;
}

Result<const WorkflowNode*> load_node_of(const Workflow& workflow, const WorkflowNode& node) {
  const WorkflowNode* found = nullptr;
  for (const WorkflowNode* ancestor : ancestors_of(workflow, node)) {
    if (!std::holds_alternative<LoadParams>(ancestor->params)) continue;
    if (found != nullptr) {
      return fail(ErrorCode::invalid_argument,
                  "{}: node {} has two sources of records, {} and {}; depend on one load node", workflow.path, node.id,
                  found->id, ancestor->id);
    }
    found = ancestor;
  }
  if (found == nullptr) {
    return fail(ErrorCode::invalid_argument, "{}: node {} has no records; depend on a load node", workflow.path,
                node.id);
  }
  return found;
}

std::string path_in(const std::string& directory, const std::string& name) {
  return (fs::path(directory) / name).string();
}

std::int64_t unix_now_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Result<void> make_output_directory(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error || !fs::is_directory(path, error)) {
    return fail(ErrorCode::invalid_argument, "output_dir {}: {}", path, error ? error.message() : "not a directory");
  }
  return {};
}

// A run that writes over its own workflow, data or templates could not go on where it was.
Result<void> refuse_overwriting_inputs(const Workflow& workflow, const Inputs& inputs) {
  std::vector<std::string> read = {workflow.path}, written = {path_in(workflow.output_dir, "report.json")};
  for (const auto& [id, prompt] : inputs.prompts) read.push_back(prompt.path());
  for (const WorkflowNode& node : workflow.nodes) {
    if (const auto* load = std::get_if<LoadParams>(&node.params)) {
      read.push_back(load->input_data_path);
    } else {
      written.push_back(path_in(workflow.output_dir, std::get<TextPromptParams>(node.params).name + ".jsonl"));
    }
  }
  for (const std::string& output : written) CHORUS_TRY_VOID(refuse_overwriting(output, read));
  return {};
}

// Journals of all nodes are opened before anything runs: what cannot be written shows at once.
Result<std::vector<NodeRun>> prepare(const Workflow& workflow, const Inputs& inputs, const WorkflowHooks& hooks) {
  std::vector<NodeRun> runs;
  std::int64_t now_unix_s = hooks.now_unix_s ? hooks.now_unix_s() : unix_now_s();
  for (const WorkflowNode& node : workflow.nodes) {
    const auto* params = std::get_if<TextPromptParams>(&node.params);
    if (params == nullptr) continue;
    CHORUS_TRY(const WorkflowNode* load, load_node_of(workflow, node));
    NodeInput input;
    input.node = &node;
    input.records = &inputs.records.at(load->id);
    input.primary_key = std::get<LoadParams>(load->params).primary_key;
    input.prompt = &inputs.prompts.at(node.id);
    // The last component of an output may be a link: it is replaced, never followed.
    input.output_path = path_in(workflow.output_dir, params->name + ".jsonl");
    const std::string journal_path = path_in(workflow.output_dir, fmt::format(".{}.progress.jsonl", params->name));
    for (const char* taken : {"finish_reason", "usage", "error"}) {
      if (input.primary_key == taken || params->name == taken || input.primary_key == params->name) {
        return fail(ErrorCode::invalid_argument,
                    "{}: node {}: primary key \"{}\" and name \"{}\" must differ from each other and from {}",
                    workflow.path, node.id, input.primary_key, params->name, taken);
      }
    }
    std::error_code error;
    if (fs::is_directory(fs::symlink_status(input.output_path, error))) {
      return fail(ErrorCode::invalid_argument, "{}: is a directory; give another output_dir", input.output_path);
    }
    std::string profile;
    if (hooks.profile) {
      CHORUS_TRY(profile, hooks.profile(*params));
    }
    const std::string fingerprint = fmt::format("{} {} {}", inputs.fingerprint, node.id, profile);
    CHORUS_TRY(Journal journal, Journal::open(journal_path, fingerprint, now_unix_s));
    now_unix_s = journal.begun_unix_s();  // one time for all nodes
    runs.emplace_back(std::move(input), std::move(journal));
  }
  return runs;
}

Result<void> write_report(const Workflow& workflow, const WorkflowReport& report) {
  Json nodes = Json::array();
  for (const NodeReport& node : report.nodes) {
    nodes.push_back({{"id", node.id},
                     {"output", fs::path(node.output_path).filename().string()},
                     {"rows", node.rows},
                     {"succeeded", node.succeeded},
                     {"failed", node.failed},
                     {"resumed", node.resumed}});
  }
  const Json all = {{"workflow", workflow.name}, {"failed", report.failed()}, {"nodes", std::move(nodes)}};
  return replace_file(path_in(workflow.output_dir, "report.json"),
                      all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace

std::size_t WorkflowReport::failed() const {
  std::size_t count = 0;
  for (const NodeReport& node : nodes) count += node.failed;
  return count;
}

Result<WorkflowReport> run_workflow(const Workflow& workflow, const BatchGeneratorFactory& factory,
                                    const WorkflowHooks& hooks) {
  CHORUS_TRY(const Inputs inputs, load_inputs(workflow));
  CHORUS_TRY_VOID(make_output_directory(workflow.output_dir));
  CHORUS_TRY_VOID(refuse_overwriting_inputs(workflow, inputs));
  CHORUS_TRY(std::vector<NodeRun> runs, prepare(workflow, inputs, hooks));
  WorkflowReport report;
  std::map<std::string, NodeOutputs> outputs;
  for (NodeRun& run : runs) {
    for (const WorkflowNode* ancestor : ancestors_of(workflow, run.node())) {
      const auto earlier = outputs.find(ancestor->id);
      if (earlier != outputs.end()) run.add_earlier(&earlier->second);
    }
    CHORUS_TRY(NodeReport node, run.run(factory, hooks));
    outputs.emplace(node.id, run.outputs());
    report.nodes.push_back(std::move(node));
  }
  CHORUS_TRY_VOID(write_report(workflow, report));
  // Last node first: cut off in between, what is left still begins with the nodes that others depend on.
  for (auto run = runs.rbegin(); run != runs.rend(); ++run) CHORUS_TRY_VOID(run->journal().remove());
  return report;
}

}  // namespace chorus
