// chorus inspect MODEL: every parameter, and the slice of it that each rank has at the given parallel sizes. Runs
// nothing.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.h"
#include "cli/inspect_report.h"
#include "cli/output_file.h"
#include "exec/model_runner.h"
#include "frontend/read_model.h"
#include "parallel/topology.h"
#include "weights/checkpoint.h"

namespace chorus {
namespace {

struct InspectOptions {
  EngineConfig engine;
  std::string output_json;
  bool json = false;
};

// With expert parallelism the replicas differ: each has other experts. Ranks that differ in cp alone never do.
Result<std::vector<InspectedShard>> shards_of(const EngineConfig& config, const ModelConfig& model) {
  const ParallelConfig& parallel = config.parallel;
  CHORUS_TRY(const Topology topology, Topology::create(parallel, parallel.world_size()));
  std::map<int, std::size_t> known;  // number of a shard -> index
  std::vector<InspectedShard> shards;
  for (int rank = 0; rank < topology.world_size(); ++rank) {
    const Coordinates at = topology.coordinates_of(rank);
    const int number = weight_shard_of(parallel, at);
    const auto [found, is_new] = known.try_emplace(number, shards.size());
    if (is_new) {
      InspectedShard& shard = shards.emplace_back();
      shard.at = at;
      shard.part = model_shard(model, parallel, number, nullptr);
    }
    shards[found->second].world_ranks.push_back(rank);
  }
  return shards;
}

// "model.layers.2.x" comes before "model.layers.10.x".
bool in_natural_order(const std::string& a, const std::string& b) {
  const auto digits_from = [](const std::string& text, std::size_t at) {
    return std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(),
                            [](char c) { return c >= '0' && c <= '9'; }) -
           (text.begin() + static_cast<std::ptrdiff_t>(at));
  };
  const std::size_t common = static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
  std::size_t start = common;  // of the number in which they differ
  while (start > 0 && a[start - 1] >= '0' && a[start - 1] <= '9') --start;
  const auto of_a = digits_from(a, start), of_b = digits_from(b, start);
  if (of_a > 0 && of_b > 0 && of_a != of_b) return of_a < of_b;
  return a < b;
}

// `ranges` and this one, ascending; those that touch become one.
void add_rows(RowRange added, std::vector<RowRange>* ranges) {
  ranges->push_back(added);
  std::ranges::sort(*ranges, {}, &RowRange::first);
  std::vector<RowRange> joined;
  for (const RowRange& range : *ranges) {
    if (!joined.empty() && range.first <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      joined.push_back(range);
    }
  }
  *ranges = std::move(joined);
}

// What a part of the model declares, added to what the parts before it have.
Result<void> add_shard(const ModelConfig& model, std::size_t index, Inspection* inspection,
                       std::map<std::string, InspectedTensor>* tensors) {
  InspectedShard& shard = inspection->shards[index];
  CHORUS_TRY(const DeclaredModel declared,
             declare_model(model, inspection->isa, inspection->dtype, shard.part, inspection->quantization));
  shard.bytes = declared.parameters.arena_bytes();
  for (NamedParameter& named : declared.parameters.named_parameters()) {
    InspectedTensor& tensor = (*tensors)[named.name];
    tensor.name = named.name;
    tensor.shape = named.shape;
    tensor.dtype = name_of(inspection->dtype);
    tensor.slices.resize(inspection->shards.size());
    shard.elements += named.row_count * named.column_count;
    std::optional<InspectedSlice>& slice = tensor.slices[index];
    const RowRange rows = {named.first_row, named.first_row + named.row_count};
    if (!slice) {
      ++shard.tensors;
      slice = InspectedSlice{std::move(named), {}};
    }
    add_rows(rows, &slice->rows);
  }
  return {};
}

// How the checkpoint has a tensor, whose shape must be that of the model.
Result<std::string> stored_as(const Checkpoint& checkpoint, const ModelConfig& model, const InspectedTensor& tensor) {
  CHORUS_TRY(const SharedQuantizedMatrix matrix, checkpoint.quantized(tensor.name));
  if (matrix != nullptr) {
    std::int64_t elements = 1;
    for (const std::int64_t size : tensor.shape) elements *= size;
    if (elements == matrix->rows() * matrix->columns()) {
      const std::optional<DType> plain = matrix->plain_dtype();
      return std::string(plain ? name_of(*plain) : name_of(model.quantization.method));
    }
  }
  CHORUS_TRY(const TensorView view, checkpoint.tensor(tensor.name, tensor.shape));
  return std::string(name_of(view.dtype));
}

// What the checkpoint says of the tensors: their dtypes, and what it has besides. A model without one is inspected by
// its config.json alone.
Result<void> look_into_checkpoint(const EngineConfig& config, const ModelConfig& model, Inspection* inspection) {
  if (config.load_format == LoadFormat::dummy) {
    inspection->no_checkpoint = "--load-format dummy";
    return {};
  }
  const auto checkpoint = open_checkpoint(config.model, model.tie_word_embeddings, model.quantization);
  if (!checkpoint.ok() && checkpoint.error().code == ErrorCode::not_found) {
    inspection->no_checkpoint = checkpoint.error().message;
    return {};
  }
  if (!checkpoint.ok()) return checkpoint.error();
  std::set<std::string> used;
  for (InspectedTensor& tensor : inspection->tensors) {
    CHORUS_TRY(tensor.dtype, stored_as(**checkpoint, model, tensor));
    used.insert(tensor.name);
  }
  for (const std::string& name : (*checkpoint)->names()) {
    if (!used.contains(name)) inspection->unused.push_back(name);
  }
  return {};
}

Result<Inspection> look_at(const EngineConfig& config, const ModelConfig& model) {
  Inspection inspection;
  inspection.model = config.model;
  inspection.architecture = model.architecture;
  inspection.parallel = config.parallel;
  CHORUS_TRY(inspection.isa, choose_isa(config.device, config.cpu_isa));
  inspection.dtype = compute_dtype(config, model);
  inspection.quantization = compute_quantization(config, model);
  CHORUS_TRY(inspection.shards, shards_of(config, model));
  std::map<std::string, InspectedTensor> tensors;
  for (std::size_t index = 0; index < inspection.shards.size(); ++index) {
    CHORUS_TRY_VOID(add_shard(model, index, &inspection, &tensors));
  }
  for (auto& [name, tensor] : tensors) inspection.tensors.push_back(std::move(tensor));
  std::ranges::sort(inspection.tensors, in_natural_order, &InspectedTensor::name);
  CHORUS_TRY_VOID(look_into_checkpoint(config, model, &inspection));
  return inspection;
}

Result<int> inspect(const InspectOptions& options) {
  CHORUS_TRY(const ModelConfig model, read_model(options.engine));
  const EngineConfig config = settled(options.engine, model);
  CHORUS_TRY(const Inspection inspection, look_at(config, model));
  if (!options.output_json.empty()) {
    CHORUS_TRY(OutputFile file, OutputFile::open(options.output_json));
    CHORUS_TRY_VOID(file.write(json_of(inspection)));
    CHORUS_TRY_VOID(file.commit());
  }
  CHORUS_TRY(OutputFile out, OutputFile::open(""));
  CHORUS_TRY_VOID(out.write(options.json ? json_of(inspection) : text_of(inspection)));
  CHORUS_TRY_VOID(out.commit());
  return exit_done;
}

}  // namespace

std::function<Result<int>()> declare_inspect(Options& options) {
  auto values = std::make_shared<InspectOptions>();
  options.positional("MODEL", &values->engine.model,
                     "Hugging Face model directory or .gguf file; config.json is enough");
  options.flag("--json", &values->json, "one JSON object instead of the table");
  options.text("--output-json", &values->output_json, "where the JSON object goes, beside the table on stdout");
  options.engine(&values->engine);
  return [values] { return inspect(*values); };
}

}  // namespace chorus
