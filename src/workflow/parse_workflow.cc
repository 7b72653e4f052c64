#include <algorithm>
#include <filesystem>
#include <map>

#include "config/nearest_name.h"
#include "frontend/sampling_options.h"
#include "json/file.h"
#include "workflow/confined_path.h"
#include "workflow/json_object.h"
#include "workflow/workflow.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;

struct Directories {
  std::string file;  // the workflow's directory
  std::string data;
  std::string prompts;
  std::string output;
};

std::string resolve(const std::string& base, const std::string& path) {
  return (fs::path(base) / path).lexically_normal().string();
}

Result<bool> flag_of(const Json& value, const std::string& where) {
  if (!value.is_boolean()) return fail(ErrorCode::invalid_argument, "{} must be true or false", where);
  return value.get<bool>();
}

// What a workflow says about engines and an EngineConfig does not hold.
struct WorkflowEngineOptions {
  int gpus_per_dp_rank = 0;  // 0: not given
  bool enable_data_parallel = true;
  bool has_tensor_parallel_size = false;
};

constexpr const char* workflow_engine_options[] = {"gpus_per_dp_rank", "dp_master_ip", "dp_master_port",
                                                   "enable_data_parallel", "disable_progress_bars"};

Result<bool> apply_workflow_option(const JsonObject& options, const std::string& name, const Json& value,
                                   TextPromptParams* params, WorkflowEngineOptions* extra) {
  const std::string where = fmt::format("{}: \"{}\"", options.where(), name);
  if (name == "gpus_per_dp_rank") {
    CHORUS_TRY(const std::int64_t count, options.integer("gpus_per_dp_rank", 1, 1, 1024));
    extra->gpus_per_dp_rank = static_cast<int>(count);
  } else if (name == "dp_master_ip") {
    CHORUS_TRY(params->dp_master_ip, options.text("dp_master_ip"));
  } else if (name == "dp_master_port") {
    CHORUS_TRY(const std::int64_t port, options.integer("dp_master_port", 0, 0, 65535));
    if (port != 0) params->dp_master_port = static_cast<int>(port);
  } else if (name == "enable_data_parallel") {
    CHORUS_TRY(extra->enable_data_parallel, flag_of(value, where));
  } else if (name == "disable_progress_bars") {
    CHORUS_TRY(params->disable_progress_bars, flag_of(value, where));
  } else {
    return false;
  }
  return true;
}

bool is_known(const std::string& name) {
  return std::ranges::find(workflow_engine_options, name) != std::end(workflow_engine_options) ||
         find_engine_option(name).ok();
}

// apply_engine_option's error for an unknown name knows nothing of the options that only workflows have.
std::optional<std::string> near_workflow_option(const std::string& name) {
  if (find_engine_option(name).ok()) return std::nullopt;
  return nearest_name(name, {std::begin(workflow_engine_options), std::end(workflow_engine_options)});
}

Result<void> apply_engine_options(const Json& source, const std::string& where, TextPromptParams* params,
                                  WorkflowEngineOptions* extra) {
  if (!source.is_object()) return fail(ErrorCode::invalid_argument, "{}: must be a JSON object", where);
  const JsonObject options(source, where);
  for (const auto& [name, value] : source.items()) {
    if (value.is_null() && is_known(name)) continue;  // the default
    CHORUS_TRY(const bool taken, apply_workflow_option(options, name, value, params, extra));
    if (taken) continue;
    if (const auto near = near_workflow_option(name)) {
      return fail(ErrorCode::invalid_argument, "{}: unknown option \"{}\"; did you mean \"{}\"?", where, name, *near);
    }
    const auto applied =
        apply_engine_option(&params->engine, name, value.is_string() ? value.get<std::string>() : value.dump());
    if (!applied.ok()) return with_context(applied.error(), where);
    const auto match = find_engine_option(name);
    extra->has_tensor_parallel_size |= match.ok() && std::string_view(match->option->name) == "tensor-parallel-size";
  }
  return {};
}

Result<void> settle_parallel_sizes(const std::string& engine_name, const WorkflowEngineOptions& extra,
                                   const std::string& where, EngineConfig* engine) {
  ParallelConfig& parallel = engine->parallel;
  if (engine_name != "chorus" && engine_name != "chorus_dp" && engine_name != "vllm_dp") {
    const auto near = nearest_name(engine_name, {"chorus", "chorus_dp", "vllm_dp"});
    return fail(ErrorCode::invalid_argument, "{}: unknown inference_engine \"{}\"; {}", where, engine_name,
                near ? fmt::format("did you mean \"{}\"?", *near) : "known are chorus, chorus_dp, vllm_dp");
  }
  if (engine_name == "chorus" && parallel.data_parallel_size > 1) {
    return fail(ErrorCode::invalid_argument,
                "{}: inference_engine chorus is one replica, data_parallel_size is {}; use chorus_dp", where,
                parallel.data_parallel_size);
  }
  if (parallel.behind_outer_balancer() || parallel.data_parallel_rank >= 0) {
    return fail(ErrorCode::invalid_argument,
                "{}: data_parallel_rank and the load balancers' modes are chorus serve's; leave them out", where);
  }
  if (!extra.enable_data_parallel) parallel.data_parallel_size = 1;
  if (extra.gpus_per_dp_rank > 0 && !extra.has_tensor_parallel_size)
    parallel.tensor_parallel_size = extra.gpus_per_dp_rank;
  const auto valid = validate(*engine);
  return valid.ok() ? Result<void>() : Result<void>(with_context(valid.error(), where));
}

Result<void> parse_generation_options(const JsonObject& params, TextPromptParams* result) {
  const Json* source = params.find("generation_options");
  if (source == nullptr) return {};
  const std::string where = params.where() + ".generation_options";
  if (!source->is_object()) return fail(ErrorCode::invalid_argument, "{}: must be a JSON object", where);
  GenerationOptions options;
  for (const auto& [name, value] : source->items()) {
    const auto applied = apply_sampling_option(&options, name, value);
    if (!applied.ok()) return with_context(applied.error(), where);
  }
  result->generation_options = source->dump();
  return {};
}

Result<TextPromptParams> parse_text_prompt(const JsonObject& params, const Directories& directories) {
  CHORUS_TRY_VOID(params.check({"name", "model_name", "inference_engine", "engine_options", "batch_size",
                                "batch_timeout", "generation_options"}));
  TextPromptParams result;
  CHORUS_TRY(result.name, params.text("name"));
  CHORUS_TRY_VOID(check_file_name(result.name, params.where() + ".name"));
  CHORUS_TRY(const std::string model, params.text("model_name"));
  CHORUS_TRY(const std::string engine_name, params.text("inference_engine", "chorus"));
  WorkflowEngineOptions extra;
  if (const Json* options = params.find("engine_options")) {
    CHORUS_TRY_VOID(apply_engine_options(*options, params.where() + ".engine_options", &result, &extra));
  }
  result.engine.model = resolve(directories.file, model);
  CHORUS_TRY_VOID(settle_parallel_sizes(engine_name, extra, params.where(), &result.engine));
  CHORUS_TRY(const std::int64_t batch_size, params.integer("batch_size", 256, 1, 1'000'000));
  result.batch_size = static_cast<std::size_t>(batch_size);
  CHORUS_TRY(result.batch_timeout_s, params.number("batch_timeout", 0, 0));
  CHORUS_TRY_VOID(parse_generation_options(params, &result));
  return result;
}

Result<LoadParams> parse_load(const JsonObject& params, const Directories& directories) {
  CHORUS_TRY_VOID(params.check({"input_data_path", "primary_key"}));
  LoadParams result;
  CHORUS_TRY(const std::string path, params.text("input_data_path"));
  CHORUS_TRY(result.input_data_path, confined_path(directories.data, path, params.where() + ".input_data_path"));
  CHORUS_TRY(result.primary_key, params.text("primary_key"));
  return result;
}

Result<std::vector<std::string>> parse_dependencies(const JsonObject& node) {
  std::vector<std::string> result;
  const Json* source = node.find("dependencies");
  if (source == nullptr) return result;
  if (!source->is_array())
    return fail(ErrorCode::invalid_argument, "{}: \"dependencies\" must be a list of node ids", node.where());
  for (const Json& id : *source) {
    if (!id.is_string())
      return fail(ErrorCode::invalid_argument, "{}: \"dependencies\" must be a list of node ids", node.where());
    result.push_back(id.get<std::string>());
  }
  return result;
}

Result<WorkflowNode> parse_node(const Json& source, const std::string& where, const Directories& directories) {
  const JsonObject anonymous(source, where);
  CHORUS_TRY_VOID(anonymous.check({"id", "type", "params", "dependencies"}));
  WorkflowNode node;
  CHORUS_TRY(node.id, anonymous.text("id"));
  const JsonObject object(source, fmt::format("{} ({})", where, node.id));
  CHORUS_TRY(const std::string type, object.text("type"));
  CHORUS_TRY(node.dependencies, parse_dependencies(object));
  const Json* params = object.find("params");
  if (params == nullptr) return fail(ErrorCode::invalid_argument, "{}: \"params\" is missing", object.where());
  const JsonObject checked(*params, object.where() + ".params");
  if (type == "load") {
    CHORUS_TRY(node.params, parse_load(checked, directories));
  } else if (type == "text_prompt") {
    CHORUS_TRY(node.params, parse_text_prompt(checked, directories));
  } else {
    const auto near = nearest_name(type, {"load", "text_prompt"});
    return fail(ErrorCode::invalid_argument, "{}: unknown type \"{}\"; {}", object.where(), type,
                near ? fmt::format("did you mean \"{}\"?", *near) : "known are load, text_prompt");
  }
  return node;
}

Result<void> check_names(const std::vector<WorkflowNode>& nodes, const std::string& path) {
  std::vector<std::string> ids;
  std::map<std::string, std::string> outputs;  // name -> node
  for (const WorkflowNode& node : nodes) {
    if (std::ranges::find(ids, node.id) != ids.end()) {
      return fail(ErrorCode::invalid_argument, "{}: two nodes have the id \"{}\"", path, node.id);
    }
    ids.push_back(node.id);
    const auto* prompt = std::get_if<TextPromptParams>(&node.params);
    if (prompt == nullptr) continue;
    const auto [other, is_new] = outputs.emplace(prompt->name, node.id);
    if (!is_new || prompt->name == "report") {
      return fail(ErrorCode::invalid_argument, "{}: node {}: the name \"{}\" is taken by {}", path, node.id,
                  prompt->name, is_new ? "report.json" : "node " + other->second);
    }
  }
  for (const WorkflowNode& node : nodes) {
    for (const std::string& id : node.dependencies) {
      if (std::ranges::find(ids, id) != ids.end()) continue;
      const auto near = nearest_name(id, ids);
      return fail(ErrorCode::invalid_argument, "{}: node {} depends on \"{}\", which is not there{}", path, node.id, id,
                  near ? fmt::format("; did you mean \"{}\"?", *near) : "");
    }
  }
  return {};
}

// Dependencies first, otherwise in the file's order.
Result<std::vector<WorkflowNode>> in_order(std::vector<WorkflowNode> nodes, const std::string& path) {
  std::vector<WorkflowNode> ordered;
  const auto is_placed = [&ordered](const std::string& id) {
    return std::ranges::any_of(ordered, [&id](const WorkflowNode& node) { return node.id == id; });
  };
  while (!nodes.empty()) {
    const auto ready = std::ranges::find_if(
        nodes, [&](const WorkflowNode& node) { return std::ranges::all_of(node.dependencies, is_placed); });
    if (ready == nodes.end()) {
      std::vector<std::string> ids;
      for (const WorkflowNode& node : nodes) ids.push_back(node.id);
      return fail(ErrorCode::invalid_argument, "{}: the dependencies of {} form a cycle", path, fmt::join(ids, ", "));
    }
    ordered.push_back(std::move(*ready));
    nodes.erase(ready);
  }
  return ordered;
}

}  // namespace

Result<Workflow> parse_workflow(const std::string& path) {
  JsonLimits limits;
  limits.bytes_max = 16u << 20;
  CHORUS_TRY(const std::string text, read_text_file(path, limits.bytes_max));
  const auto parsed = parse_json(text, limits);
  if (!parsed) return with_context(parsed.error(), path);
  const Json& source = *parsed;
  const JsonObject object(source, path);
  CHORUS_TRY_VOID(object.check({"name", "data_dir", "output_dir", "prompts_dir", "nodes"}));
  Workflow workflow;
  std::error_code error;
  workflow.path = fs::absolute(path, error).lexically_normal().string();
  if (error) return fail(ErrorCode::internal, "{}: {}", path, error.message());
  Directories directories;
  directories.file = fs::path(workflow.path).parent_path().string();
  CHORUS_TRY(workflow.name, object.text("name"));
  CHORUS_TRY(const std::string data_dir, object.text("data_dir", "."));
  CHORUS_TRY(const std::string prompts_dir, object.text("prompts_dir", "."));
  CHORUS_TRY(const std::string output_dir, object.text("output_dir"));
  directories.data = workflow.data_dir = resolve(directories.file, data_dir);
  directories.prompts = workflow.prompts_dir = resolve(directories.file, prompts_dir);
  directories.output = workflow.output_dir = resolve(directories.file, output_dir);
  const Json* nodes = object.find("nodes");
  if (nodes == nullptr || !nodes->is_array() || nodes->empty()) {
    return fail(ErrorCode::invalid_argument, "{}: \"nodes\" must be a list of at least one node", path);
  }
  for (std::size_t i = 0; i < nodes->size(); ++i) {
    CHORUS_TRY(WorkflowNode node, parse_node((*nodes)[i], fmt::format("{}: nodes[{}]", path, i), directories));
    workflow.nodes.push_back(std::move(node));
  }
  CHORUS_TRY_VOID(check_names(workflow.nodes, path));
  CHORUS_TRY(workflow.nodes, in_order(std::move(workflow.nodes), path));
  return workflow;
}

}  // namespace chorus
