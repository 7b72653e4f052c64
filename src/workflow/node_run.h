// One text_prompt node over all records: render, split, generate batch by batch, journal, write.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "json/journal.h"
#include "workflow/prompt_source.h"
#include "workflow/workflow.h"

namespace chorus {

// What one node has made of each record: its text, or why there is none.
struct NodeOutputs {
  std::string name;
  std::vector<std::optional<std::string>> texts;
};

struct NodeInput {
  const WorkflowNode* node = nullptr;
  const std::vector<Json>* records = nullptr;
  std::string primary_key;
  const PromptSource* prompt = nullptr;
  std::string output_path;
};

class NodeRun {
 public:
  NodeRun(NodeInput input, Journal journal) : input_(std::move(input)), journal_(std::move(journal)) {}

  const WorkflowNode& node() const { return *input_.node; }
  // What a text_prompt node that this one depends on, directly or not, has made; must outlive run().
  void add_earlier(const NodeOutputs* outputs) { earlier_.push_back(outputs); }

  // Ends with the output file written, whatever rows failed. An error: nothing under its name; the journal has what was
  // done.
  Result<NodeReport> run(const BatchGeneratorFactory& factory, const WorkflowHooks& hooks);
  NodeOutputs outputs() const;
  Journal& journal() { return journal_; }

 private:
  const TextPromptParams& params() const { return std::get<TextPromptParams>(input_.node->params); }
  std::optional<std::size_t> row_of(const Json& entry) const;
  void resume();
  std::vector<PromptRow> render_rows();
  Result<Json> fields_of(std::size_t row) const;
  Result<void> generate(std::vector<PromptRow> rows, const BatchGeneratorFactory& factory, const WorkflowHooks& hooks);
  Result<void> run_batch(std::size_t number, std::span<PromptRow> rows, BatchGenerator* generator);
  void finish(std::size_t row, const RowResult& result);
  Error interrupted_error() const;
  Result<void> record(std::size_t row, const RowResult& result);  // finish and append to the journal

  NodeInput input_;
  Journal journal_;
  std::vector<const NodeOutputs*> earlier_;
  std::vector<Json> lines_;  // of the output, by row; null until done
  std::size_t done_ = 0;
  std::size_t resumed_ = 0;
};

}  // namespace chorus
