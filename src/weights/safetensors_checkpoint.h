// The tensors of a folder's safetensors files, single or sharded, of whatever element type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "weights/checkpoint.h"
#include "weights/safetensors_header.h"

namespace chorus {

// A tensor as it lies in a file; views that live as long as the checkpoint.
struct StoredTensor {
  const std::byte* data = nullptr;  // no alignment is promised
  std::string_view type;            // as written: "I32"
  std::vector<std::int64_t> shape;  // its product times the element size lies at `data`
  std::string_view file;
};

// One file, mapped.
struct SafetensorsShard {
  std::string path;
  MappedFile file;
  std::size_t data_begin = 0;  // bytes in front of the first tensor's
  SafetensorsHeader header;
};

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  explicit SafetensorsCheckpoint(std::string source) : source_(std::move(source)) {}

  const SafetensorsShard& add(SafetensorsShard shard) {
    shards_.push_back(std::make_unique<SafetensorsShard>(std::move(shard)));
    return *shards_.back();
  }
  void place(const SafetensorsShard& shard, const SafetensorsEntry& entry) {
    places_.emplace(entry.name, Place{&shard, &entry});
  }
  // The index puts `name` into `file`, which does not have it.
  void note_absent(const std::string& name, const std::string& file) { absent_.emplace(name, file); }
  // `alias` is the tensor `name` where it is none itself.
  void add_alias(const std::string& alias, const std::string& name) {
    const Place* const place = find(name);
    if (place != nullptr) aliases_.emplace(alias, *place);
  }
  void add_aliases() {
    for (const auto& shard : shards_) {
      for (const auto& [alias, name] : shard->header.aliases) add_alias(alias, name);
    }
  }

  bool has(const std::string& name) const override { return find(name) != nullptr; }
  Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const override;
  // The file or the index, for messages.
  const std::string& source() const { return source_; }
  std::optional<StoredTensor> stored(const std::string& name) const;
  std::vector<std::string> names() const override;
  std::size_t files() const override { return shards_.size(); }
  std::string digest() const override;
  void release(const std::string& name) const override;

 private:
  struct Place {
    const SafetensorsShard* shard;
    const SafetensorsEntry* entry;
  };
  const Place* find(const std::string& name) const {
    const auto found = places_.find(name);
    if (found != places_.end()) return &found->second;
    const auto alias = aliases_.find(name);
    return alias == aliases_.end() ? nullptr : &alias->second;
  }
  Error missing(const std::string& name) const;

  std::string source_;
  std::vector<std::unique_ptr<SafetensorsShard>> shards_;
  std::unordered_map<std::string, Place> places_, aliases_;  // by tensor
  std::unordered_map<std::string, std::string> absent_;      // tensor -> file
};

// What is there of DIRECTORY/model.safetensors, else of DIRECTORY/model.safetensors.index.json. Errors: as
// open_checkpoint(); not_found: neither is there.
Result<std::unique_ptr<SafetensorsCheckpoint>> open_safetensors(const std::string& directory, bool tied_head);

}  // namespace chorus
