#include "cli/inspect_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "json/json.h"

namespace chorus {
namespace {

constexpr std::array coordinate_names = {"dp", "pp", "tp"};

std::array<int, 3> values_of(const InspectedShard& shard) {
  return {shard.at.dp, shard.at.pp, shard.at.tp};
}

std::int64_t elements_of(const InspectedTensor& tensor) {
  std::int64_t elements = 1;
  for (const std::int64_t size : tensor.shape) elements *= size;
  return elements;
}

// Whether an element of it lies in more than one shard.
bool is_replicated(const InspectedTensor& tensor) {
  std::int64_t held = 0;
  for (const auto& slice : tensor.slices) held += slice ? slice->elements() : 0;
  return held > elements_of(tensor);
}

// ---- text ----

std::string range_of(std::int64_t first, std::int64_t count, std::int64_t whole) {
  return first == 0 && count == whole ? ":" : fmt::format("{}:{}", first, first + count);
}

// "[0:32, :]" as Python would cut it, "[0:32+64:80, :]" for two ranges of rows; "none" of what a shard does not have.
std::string slice_text(const InspectedTensor& tensor, const std::optional<InspectedSlice>& slice) {
  if (!slice) return "none";
  std::vector<std::string> ranges;
  for (const auto& [first, end] : slice->rows) ranges.push_back(range_of(first, end - first, tensor.shape.front()));
  const std::string rows = fmt::format("{}", fmt::join(ranges, "+"));
  if (tensor.shape.size() == 1) return fmt::format("[{}]", rows);
  return fmt::format("[{}, {}]", rows,
                     range_of(slice->first.first_column, slice->first.column_count, tensor.shape.back()));
}

using Members = std::vector<std::size_t>;  // indices into Inspection::shards

// The shortest name of some shards: a coordinate in which all of its values occur is left out. Empty: all shards.
std::string label_of(const std::vector<InspectedShard>& shards, const Members& members) {
  std::array<std::set<int>, 3> all, own;
  for (const InspectedShard& shard : shards) {
    for (std::size_t c = 0; c < all.size(); ++c) all[c].insert(values_of(shard)[c]);
  }
  for (const std::size_t member : members) {
    for (std::size_t c = 0; c < own.size(); ++c) own[c].insert(values_of(shards[member])[c]);
  }
  if (own[0].size() * own[1].size() * own[2].size() != members.size()) {  // no rectangle: one by one
    std::vector<std::string> labels;
    for (const std::size_t member : members) labels.push_back(label_of(shards, {member}));
    return fmt::format("{}", fmt::join(labels, " and "));
  }
  std::string label;
  for (std::size_t c = 0; c < own.size(); ++c) {
    if (own[c].size() == all[c].size()) continue;
    label += fmt::format("{}{}={}", label.empty() ? "" : " ", coordinate_names[c], fmt::join(own[c], ","));
  }
  return label;
}

std::string slices_text(const Inspection& inspection, const InspectedTensor& tensor) {
  std::vector<std::pair<std::string, Members>> groups;  // equal slices, in order of their first shard
  for (std::size_t i = 0; i < tensor.slices.size(); ++i) {
    const std::string slice = slice_text(tensor, tensor.slices[i]);
    auto group = std::ranges::find(groups, slice, &std::pair<std::string, Members>::first);
    if (group == groups.end()) group = groups.insert(groups.end(), {slice, {}});
    group->second.push_back(i);
  }
  std::vector<std::string> parts;
  for (const auto& [slice, members] : groups) {
    const std::string label = label_of(inspection.shards, members);
    const bool copies = members.size() > 1 && slice != "none";
    // Those without the one expert are all the others: their names would only hide who has it.
    const bool others = slice == "none" && label.find(" and ") != std::string::npos;
    parts.push_back(fmt::format("{}{}{}{}", others ? "others" : label, label.empty() ? "" : ": ", slice,
                                copies ? " replicated" : ""));
  }
  return fmt::format("{}", fmt::join(parts, "  "));
}

std::string head_text(const Inspection& inspection) {
  const ParallelConfig& parallel = inspection.parallel;
  std::int64_t elements = 0;
  for (const InspectedTensor& tensor : inspection.tensors) elements += elements_of(tensor);
  std::string text = fmt::format("{}: {}, {} parameters, {} elements\n", inspection.model, inspection.architecture,
                                 inspection.tensors.size(), elements);
  text += fmt::format("computed in {} ({}){}\n", name_of(inspection.dtype), name_of(inspection.isa),
                      inspection.no_checkpoint ? "; no checkpoint: " + *inspection.no_checkpoint : "");
  text +=
      fmt::format("{} workers: dp {} x pp {} x cp {} x tp {}{}\n\n", parallel.world_size(), parallel.data_parallel_size,
                  parallel.pipeline_parallel_size, parallel.decode_context_parallel_size, parallel.tensor_parallel_size,
                  parallel.enable_expert_parallel ? ", experts over dp x tp" : "");
  return text;
}

// "dp=0,1 pp=0 tp=1": the workers that have a shard, by the coordinates in which this world has more than one value.
std::string workers_text(const Inspection& inspection, const InspectedShard& shard) {
  const std::string label = label_of(inspection.shards, {static_cast<std::size_t>(&shard - inspection.shards.data())});
  const std::size_t workers = shard.world_ranks.size();
  const std::string ranks =
      workers <= 8 ? fmt::format("{}", fmt::join(shard.world_ranks, ","))
                   : fmt::format("{},{},.. ({} ranks)", shard.world_ranks[0], shard.world_ranks[1], workers);
  return label.empty() ? ranks : fmt::format("{}: {}", label, ranks);
}

std::string table_text(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c + 1 < row.size(); ++c) text += fmt::format("{:<{}}  ", row[c], widths[c]);
    text += row.back() + "\n";
  }
  return text;
}

// ---- JSON ----

Json range_json(std::int64_t first, std::int64_t count) {
  return Json::array({first, first + count});
}

// One range, or a list of them.
Json rows_json(const std::vector<RowRange>& rows) {
  Json ranges = Json::array();
  for (const auto& [first, end] : rows) ranges.push_back(range_json(first, end - first));
  return ranges.size() == 1 ? ranges.front() : ranges;
}

Json slice_json(const InspectedTensor& tensor, const std::optional<InspectedSlice>& slice) {
  if (!slice) return nullptr;
  Json json = {{"rows", rows_json(slice->rows)}};
  const NamedParameter& part = slice->first;
  if (tensor.shape.size() > 1) json["columns"] = range_json(part.first_column, part.column_count);
  constexpr std::array kinds = {"linear", "table", "vector"};
  json["packed_as"] = kinds[static_cast<std::size_t>(part.kind)];
  json["packed_dtype"] = name_of(part.format);
  return json;
}

Json tensor_json(const InspectedTensor& tensor) {
  Json slices = Json::array();
  for (const auto& slice : tensor.slices) slices.push_back(slice_json(tensor, slice));
  return {{"name", tensor.name},
          {"shape", tensor.shape},
          {"dtype", tensor.dtype},
          {"replicated", is_replicated(tensor)},
          {"slices", slices}};
}

Json shard_json(const InspectedShard& shard) {
  return {{"dp", shard.at.dp},
          {"pp", shard.at.pp},
          {"tp", shard.at.tp},
          {"ranks", shard.world_ranks},
          {"layers", range_json(shard.part.first_layer, shard.part.last_layer - shard.part.first_layer)},
          {"parameters", shard.tensors},
          {"elements", shard.elements},
          {"bytes", shard.bytes}};
}

Json head_json(const Inspection& inspection) {
  const ParallelConfig& parallel = inspection.parallel;
  std::uint64_t bytes = 0;
  for (const InspectedShard& shard : inspection.shards) bytes += shard.bytes;
  return {{"model", inspection.model},
          {"architecture", inspection.architecture},
          {"checkpoint", !inspection.no_checkpoint},
          {"dtype", name_of(inspection.dtype)},
          {"cpu_isa", name_of(inspection.isa)},
          {"data_parallel_size", parallel.data_parallel_size},
          {"pipeline_parallel_size", parallel.pipeline_parallel_size},
          {"decode_context_parallel_size", parallel.decode_context_parallel_size},
          {"tensor_parallel_size", parallel.tensor_parallel_size},
          {"enable_expert_parallel", parallel.enable_expert_parallel},
          {"weight_bytes", bytes},
          {"unused", inspection.unused}};
}

// `"name": [` and a line an entry.
template <typename Entries, typename ToJson>
std::string lines_json(const char* name, const Entries& entries, const ToJson& to_json) {
  std::string text = fmt::format("\"{}\": [", name);
  for (const auto& entry : entries) text += (text.back() == '[' ? "\n  " : ",\n  ") + to_json(entry).dump();
  return text + "\n]";
}

}  // namespace

std::int64_t InspectedSlice::elements() const {
  std::int64_t count = 0;
  for (const auto& [begin, end] : rows) count += end - begin;
  return count * first.column_count;
}

std::string text_of(const Inspection& inspection) {
  std::vector<std::vector<std::string>> rows = {{"PARAMETER", "SHAPE", "DTYPE", "SLICES"}};
  for (const InspectedTensor& tensor : inspection.tensors) {
    rows.push_back({tensor.name, fmt::format("[{}]", fmt::join(tensor.shape, ", ")), tensor.dtype,
                    slices_text(inspection, tensor)});
  }
  std::string text = head_text(inspection) + table_text(rows) + "\n";
  rows = {{"RANKS", "LAYERS", "PARAMETERS", "ELEMENTS", "BYTES"}};
  for (const InspectedShard& shard : inspection.shards) {
    rows.push_back(
        {workers_text(inspection, shard), fmt::format("{}:{}", shard.part.first_layer, shard.part.last_layer),
         fmt::format("{}", shard.tensors), fmt::format("{}", shard.elements), fmt::format("{}", shard.bytes)});
  }
  text += table_text(rows);
  if (!inspection.unused.empty()) {
    text += fmt::format("\nin the checkpoint and not used: {}\n", fmt::join(inspection.unused, ", "));
  }
  return text;
}

std::string json_of(const Inspection& inspection) {
  // A path need not be UTF-8; everything else here was read from JSON.
  std::string text = head_json(inspection).dump(-1, ' ', false, Json::error_handler_t::replace);
  text.pop_back();  // the closing brace
  text += ",\n" + lines_json("shards", inspection.shards, shard_json);
  text += ",\n" + lines_json("parameters", inspection.tensors, tensor_json);
  return text + "}\n";
}

}  // namespace chorus
