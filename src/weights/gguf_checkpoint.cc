#include "weights/gguf_checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "config/nearest_name.h"
#include "gguf/architecture.h"
#include "weights/checkpoint_digest.h"
#include "weights/made_tensors.h"
#include "weights/tied_head.h"

namespace chorus {
namespace {

std::size_t row_bytes(const HfTensor& tensor) {
  const GgufTensorType& type = *tensor.source->type;
  const std::int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  return static_cast<std::size_t>(columns / type.block_elements) * type.block_bytes;
}

// The whole tensor in the order of its rows: plain elements as they are, quantised ones as float32.
void make_rows(const HfTensor& tensor, std::byte* out) {
  const GgufTensorType& type = *tensor.source->type;
  const std::size_t bytes = row_bytes(tensor);
  const std::int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  std::int64_t rows = 1;
  for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  // A bias of reordered heads has its elements where a matrix has rows.
  const bool is_vector = tensor.shape.size() == 1;
  const std::int64_t units = is_vector ? columns : rows;
  const std::size_t unit_bytes = is_vector ? type.block_bytes : bytes;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const std::byte* from = tensor.source->data + static_cast<std::size_t>(source_row(tensor, unit)) * unit_bytes;
    if (type.dtype) {
      std::memcpy(out, from, unit_bytes);
      out += unit_bytes;
      continue;
    }
    for (std::int64_t column = 0; column < columns; column += type.block_elements) {
      type.to_float(from, reinterpret_cast<float*>(out));
      from += type.block_bytes;
      out += static_cast<std::size_t>(type.block_elements) * sizeof(float);
    }
  }
}

// A quantised matrix; groups are those of its type, where it has some that a format holds.
class GgufMatrix final : public QuantizedMatrix {
 public:
  explicit GgufMatrix(const HfTensor& tensor)
      : QuantizedMatrix(tensor.shape[0], tensor.shape[1],
                        type_of(tensor).read_group != nullptr ? type_of(tensor).kind : LinearFormat::plain),
        tensor_(tensor) {}

  LinearGroup read(std::int64_t row, std::int64_t first, LinearFormat::Kind kind) const override {
    return type_of(tensor_).read_group(data_of(row), first, kind);
  }

  void read_floats(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const override {
    const GgufTensorType& type = type_of(tensor_);
    std::array<float, block_elements_max> block;
    for (std::int64_t column = first; column < first + count;) {
      const std::int64_t skipped = column % type.block_elements;
      const std::int64_t width = std::min(type.block_elements - skipped, first + count - column);
      type.to_float(data_of(row) + static_cast<std::size_t>(column / type.block_elements) * type.block_bytes,
                    block.data());
      out = std::copy_n(block.begin() + skipped, width, out);
      column += width;
    }
  }

 private:
  static constexpr std::size_t block_elements_max = 256;
  static const GgufTensorType& type_of(const HfTensor& tensor) { return *tensor.source->type; }
  const std::byte* data_of(std::int64_t row) const {
    return tensor_.source->data + static_cast<std::size_t>(source_row(tensor_, row)) * row_bytes(tensor_);
  }

  const HfTensor& tensor_;
};

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(GgufFile file, bool tied_head) : file_(std::move(file)), tied_head_(tied_head) {}

  Result<void> index() {
    CHORUS_TRY(tensors_, hf_tensors(file_));
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!places_.emplace(tensors_[i].name, i).second) {
        return fail(ErrorCode::invalid_argument, "{}: two tensors are {}", file_.path(), tensors_[i].name);
      }
    }
    return {};
  }

  bool has(const std::string& name) const override { return find(name) != nullptr; }

  Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const override {
    const HfTensor* const found = find(name);
    if (found == nullptr) return missing(name);
    const GgufTensorType& type = *found->source->type;
    const std::string& path = file_.path_of(*found->source);
    const bool is_vector = found->shape.size() == 1;
    if (!type.is_readable() || (is_vector && !type.dtype)) {
      return fail(ErrorCode::invalid_argument, "{}: tensor {} ({}) is of type {}, which is not read here", path,
                  found->source->name, name, type.name);
    }
    if (found->shape != shape) {
      return fail(ErrorCode::invalid_argument, "{}: tensor {} ({}) has shape [{}]; the metadata ask for [{}]", path,
                  found->source->name, name, fmt::join(found->shape, ", "), fmt::join(shape, ", "));
    }
    const DType dtype = type.dtype.value_or(DType::float32);
    if (type.dtype && found->reordered_heads == 0) {
      const std::size_t skipped = static_cast<std::size_t>(found->first_row) * row_bytes(*found);
      return TensorView{found->source->data + skipped, dtype, shape, path};
    }
    CHORUS_TRY(const std::byte* const bytes,
               made_.get(found->name, shape, bytes_of(dtype), [found](std::byte* out) { make_rows(*found, out); }));
    return TensorView{bytes, dtype, shape, path};
  }

  Result<SharedQuantizedMatrix> quantized(const std::string& name) const override {
    const HfTensor* const found = find(name);
    if (found == nullptr || found->shape.size() != 2 || found->source->type->to_float == nullptr) {
      return SharedQuantizedMatrix();
    }
    return SharedQuantizedMatrix(std::make_shared<GgufMatrix>(*found));
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const HfTensor& tensor : tensors_) {
      // What the metadata take in: gguf/config.cc.
      if (!tensor.name.starts_with("rope_")) names.push_back(tensor.name);
    }
    std::ranges::sort(names);
    return names;
  }

  std::string digest() const override {
    CheckpointDigest digest;
    for (const GgufTensor& tensor : file_.tensors()) {
      digest.add(tensor.name, tensor.type->name, tensor.shape, {tensor.data, tensor.bytes});
    }
    return digest.text();
  }

  void release(const std::string& name) const override {
    const HfTensor* const found = find(name);
    if (found == nullptr) return;
    made_.release(found->name);
    if (found->shape.size() == found->source->shape.size()) file_.release(*found->source);
  }

 private:
  const HfTensor* find(const std::string& name) const {
    auto found = places_.find(name);
    if (found == places_.end() && tied_head_) {
      if (name == head_name) found = places_.find(embedding_name);
      if (name == embedding_name) found = places_.find(head_name);
    }
    return found == places_.end() ? nullptr : &tensors_[found->second];
  }
  Error missing(const std::string& name) const {
    const auto nearest = nearest_name(name, names());
    return fail(ErrorCode::not_found, "{}: no tensor {} among {}{}", file_.path(), name, tensors_.size(),
                nearest ? fmt::format("; nearest: {}", *nearest) : "");
  }

  GgufFile file_;
  bool tied_head_;
  std::vector<HfTensor> tensors_;
  std::unordered_map<std::string, std::size_t> places_;
  mutable MadeTensors made_;
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> open_gguf_checkpoint(const std::string& path, bool tied_head) {
  CHORUS_TRY(GgufFile file, GgufFile::open(path));
  auto checkpoint = std::make_unique<GgufCheckpoint>(std::move(file), tied_head);
  CHORUS_TRY_VOID(checkpoint->index());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace chorus
