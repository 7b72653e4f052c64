#include "weights/safetensors_checkpoint.h"

#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "config/nearest_name.h"
#include "json/python_json.h"
#include "weights/checkpoint_digest.h"
#include "weights/tied_head.h"

namespace chorus {
namespace {

constexpr const char* single_name = "model.safetensors";
constexpr const char* index_name = "model.safetensors.index.json";

bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

Result<SafetensorsShard> open_shard(const std::string& path) {
  SafetensorsShard shard;
  shard.path = path;
  CHORUS_TRY(shard.file, MappedFile::open(path));
  unsigned char prefix[8] = {};
  if (shard.file.size() >= 8) std::memcpy(prefix, shard.file.data(), 8);
  const auto length = safetensors_header_length(prefix, shard.file.size());
  if (!length) return with_context(length.error(), path);
  shard.data_begin = 8 + static_cast<std::size_t>(*length);
  const std::string_view header(reinterpret_cast<const char*>(shard.file.data()) + 8,
                                static_cast<std::size_t>(*length));
  auto parsed = parse_safetensors_header(header, shard.file.size() - shard.data_begin);
  if (!parsed) return with_context(parsed.error(), path);
  shard.header = std::move(*parsed);
  return shard;
}

}  // namespace

Result<TensorView> SafetensorsCheckpoint::tensor(const std::string& name,
                                                 const std::vector<std::int64_t>& shape) const {
  const Place* const found = find(name);
  if (found == nullptr) return missing(name);
  const auto& [shard, entry] = *found;
  if (!entry->dtype) {
    return fail(ErrorCode::invalid_argument, "{}: tensor {} has dtype {}; weights may be F32, BF16 or F16", shard->path,
                name, entry->type);
  }
  if (entry->shape != shape) {
    return fail(ErrorCode::invalid_argument, "{}: tensor {} has shape [{}]; config.json asks for [{}]", shard->path,
                name, fmt::join(entry->shape, ", "), fmt::join(shape, ", "));
  }
  return TensorView{shard->file.data() + shard->data_begin + entry->begin, *entry->dtype, entry->shape, shard->path};
}

std::optional<StoredTensor> SafetensorsCheckpoint::stored(const std::string& name) const {
  const Place* const found = find(name);
  if (found == nullptr) return std::nullopt;
  const auto& [shard, entry] = *found;
  return StoredTensor{shard->file.data() + shard->data_begin + entry->begin, entry->type, entry->shape, shard->path};
}

Error SafetensorsCheckpoint::missing(const std::string& name) const {
  if (const auto absent = absent_.find(name); absent != absent_.end()) {
    return fail(ErrorCode::invalid_argument, "{}: tensor {} is said to be in {}, which {}", source_, name,
                absent->second, exists(absent->second) ? "does not have it" : "is not there");
  }
  const auto nearest = nearest_name(name, names());
  return fail(ErrorCode::not_found, "{}: no tensor {} among {}{}", source_, name, places_.size(),
              nearest ? fmt::format("; nearest: {}", *nearest) : "");
}

std::vector<std::string> SafetensorsCheckpoint::names() const {
  std::vector<std::string> result;
  result.reserve(places_.size());
  for (const auto& [name, place] : places_) result.push_back(name);
  std::sort(result.begin(), result.end());
  return result;
}

std::string SafetensorsCheckpoint::digest() const {
  CheckpointDigest digest;
  for (const std::string& name : names()) {
    const auto& [shard, entry] = places_.at(name);
    digest.add(name, entry->type, entry->shape,
               {shard->file.data() + shard->data_begin + entry->begin, entry->end - entry->begin});
  }
  return digest.text();
}

void SafetensorsCheckpoint::release(const std::string& name) const {
  const Place* const found = find(name);
  if (found == nullptr) return;
  const auto& [shard, entry] = *found;
  shard->file.release(shard->data_begin + entry->begin, shard->data_begin + entry->end);
}

namespace {

Result<std::unique_ptr<SafetensorsCheckpoint>> open_single(const std::string& path) {
  CHORUS_TRY(SafetensorsShard opened, open_shard(path));
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(path);
  const SafetensorsShard& shard = checkpoint->add(std::move(opened));
  for (const SafetensorsEntry& entry : shard.header.entries) checkpoint->place(shard, entry);
  return checkpoint;
}

// A shard is a file of the model's own directory: a name with a separator could lead anywhere.
Result<void> check_shard_name(const std::string& index, const std::string& tensor, const std::string& file) {
  const bool plain = !file.empty() && file.size() <= 255 && file != "." && file != ".." &&
                     file.find('/') == std::string::npos && file.find('\\') == std::string::npos &&
                     file.find('\0') == std::string::npos;
  if (plain) return {};
  return fail(ErrorCode::invalid_argument,
              "{}: tensor {} is said to be in \"{}\"; accepted: the name of a file in the same directory", index,
              tensor.substr(0, 200), file.substr(0, 200));
}

// weight_map the other way round: for each shard file the tensors that the index puts there.
using ShardTensors = std::map<std::string, std::vector<std::string>>;

Result<ShardTensors> read_index(const std::string& path) {
  CHORUS_TRY(const Json document, read_python_json_file(path, 256U << 20));
  const auto map = document.is_object() ? document.find("weight_map") : document.end();
  if (!document.is_object() || map == document.end() || !map->is_object() || map->empty()) {
    return fail(ErrorCode::invalid_argument, "{}: weight_map is missing, empty or no object", path);
  }
  ShardTensors shards;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string())
      return fail(ErrorCode::invalid_argument, "{}: weight_map[{}] is no string", path, name.substr(0, 200));
    CHORUS_TRY_VOID(check_shard_name(path, name, file.get<std::string>()));
    shards[file.get<std::string>()].push_back(name);
  }
  return shards;
}

// A tensor that is not there is an error when it is asked for: an index may list more than the model needs (a tied
// head, inv_freq of old rotary embeddings, layers for multi-token prediction).
void place_tensors(const SafetensorsShard& shard, const std::vector<std::string>& names,
                   SafetensorsCheckpoint* checkpoint) {
  std::unordered_map<std::string_view, const SafetensorsEntry*> by_name;
  for (const SafetensorsEntry& entry : shard.header.entries) by_name.emplace(entry.name, &entry);
  for (const std::string& name : names) {
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      checkpoint->note_absent(name, shard.path);
    } else {
      checkpoint->place(shard, *found->second);
    }
  }
}

Result<std::unique_ptr<SafetensorsCheckpoint>> open_sharded(const std::string& directory, const std::string& index) {
  CHORUS_TRY(const ShardTensors shards, read_index(index));
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>(index);
  for (const auto& [file, names] : shards) {
    const std::string path = directory + "/" + file;
    if (!exists(path)) {
      for (const std::string& name : names) checkpoint->note_absent(name, path);
      continue;
    }
    auto opened = open_shard(path);
    if (!opened) return with_context(opened.error(), index);
    const SafetensorsShard& shard = checkpoint->add(std::move(*opened));
    place_tensors(shard, names, checkpoint.get());
  }
  return checkpoint;
}

}  // namespace

Result<std::unique_ptr<SafetensorsCheckpoint>> open_safetensors(const std::string& directory, bool tied_head) {
  const std::string single = directory + "/" + single_name;
  const std::string index = directory + "/" + index_name;
  if (!exists(single) && !exists(index)) {
    return fail(ErrorCode::not_found,
                "no {} and no {} in {}: convert the weights to safetensors, or use --load-format dummy", single_name,
                index_name, directory);
  }
  CHORUS_TRY(auto checkpoint, exists(single) ? open_single(single) : open_sharded(directory, index));
  checkpoint->add_aliases();
  if (tied_head) {
    checkpoint->add_alias(embedding_name, head_name);
    checkpoint->add_alias(head_name, embedding_name);
  }
  return checkpoint;
}

}  // namespace chorus
