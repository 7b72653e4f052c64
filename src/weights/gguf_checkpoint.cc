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

std::size_t bytes_of_row(const GgufTensorType& type, std::int64_t columns) {
  return static_cast<std::size_t>(columns / type.block_elements) * type.block_bytes;
}

// Elements [first, first + count) of a row whose first block is at `row`.
void read_elements(const GgufTensorType& type, const std::byte* row, std::int64_t first, std::int64_t count,
                   float* out) {
  if (type.dtype) {
    for (std::int64_t i = 0; i < count; ++i) {
      *out++ = load_as_float(row, *type.dtype, static_cast<std::size_t>(first + i));
    }
    return;
  }
  constexpr std::size_t block_elements_max = 256;
  std::array<float, block_elements_max> block;
  for (std::int64_t column = first; column < first + count;) {
    const std::int64_t skipped = column % type.block_elements;
    const std::int64_t width = std::min(type.block_elements - skipped, first + count - column);
    type.to_float(row + bytes_of_row(type, column - skipped), block.data());
    out = std::copy_n(block.begin() + skipped, width, out);
    column += width;
  }
}

const std::byte* data_of(const SourceRow& row, std::int64_t columns) {
  return row.source->data + static_cast<std::size_t>(row.row) * bytes_of_row(*row.source->type, columns);
}

void read_row(const HfTensor& tensor, std::int64_t row, std::int64_t first, std::int64_t count, float* out) {
  SourceRow from = source_row(tensor, row);
  const GgufTensorType& type = *from.source->type;
  if (from.column < 0) return read_elements(type, data_of(from, tensor.columns), first, count, out);
  const std::int64_t columns = from.source->shape.back();
  for (from.row += first; count > 0; --count, ++from.row, ++out) {
    read_elements(type, data_of(from, columns), from.column, 1, out);
  }
}

// What tensor() gives the elements as: of one plain piece as they are.
DType dtype_of(const HfTensor& tensor) {
  const bool is_copied = tensor.pieces.size() == 1 && !tensor.is_transposed;
  return is_copied ? tensor.source().type->dtype.value_or(DType::float32) : DType::float32;
}

// The whole tensor as its shape has it.
void make_elements(const HfTensor& tensor, std::byte* out) {
  const std::int64_t rows = tensor.rows(), columns = tensor.columns;
  if (dtype_of(tensor) != DType::float32) {
    const std::size_t bytes = bytes_of_row(*tensor.source().type, columns);
    for (std::int64_t row = 0; row < rows; ++row, out += bytes) {
      std::memcpy(out, data_of(source_row(tensor, row), columns), bytes);
    }
    return;
  }
  auto* to = reinterpret_cast<float*>(out);
  if (!tensor.is_transposed) {
    for (std::int64_t row = 0; row < rows; ++row, to += columns) read_row(tensor, row, 0, columns, to);
    return;
  }
  const std::int64_t width = tensor.shape.back();  // rows of one matrix
  std::vector<float> values(static_cast<std::size_t>(columns));
  for (std::int64_t row = 0; row < rows; ++row) {
    read_row(tensor, row, 0, columns, values.data());
    float* element = to + row / width * width * columns + row % width;
    for (const float value : values) {
      *element = value;
      element += width;
    }
  }
}

// A matrix whose rows are outputs, whatever the file and the model make of that. Groups are those of its type, where it
// has some that a format holds.
class GgufMatrix final : public QuantizedMatrix {
 public:
  explicit GgufMatrix(const HfTensor& tensor)
      : QuantizedMatrix(tensor.rows(), tensor.columns,
                        tensor.source().type->read_group != nullptr ? tensor.kind() : LinearFormat::plain,
                        tensor.source().type->dtype),
        tensor_(tensor),
        row_bytes_(bytes_of_row(*tensor.source().type, tensor.columns)) {
    if (tensor.lies_as_it_is() && !tensor.pieces.front().is_turned)
      first_row_ = data_of(source_row(tensor, 0), columns());
  }

  LinearGroup read(std::int64_t row, std::int64_t first, LinearFormat::Kind kind) const override {
    const std::byte* const from = first_row_ != nullptr ? first_row_ + static_cast<std::size_t>(row) * row_bytes_
                                                        : data_of(source_row(tensor_, row), columns());
    return tensor_.source().type->read_group(from, first, kind);
  }

  void read_floats(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const override {
    read_row(tensor_, row, first, count, out);
  }

 private:
  const HfTensor& tensor_;
  std::size_t row_bytes_;
  // Of most matrices, whose rows follow each other in the file: a file has millions of groups, each looked up here.
  const std::byte* first_row_ = nullptr;
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
    const std::string& path = file_.path_of(found->source());
    if (const GgufTensor* const unread = unread_piece(*found)) {
      return fail(ErrorCode::invalid_argument, "{}: tensor {} ({}) is of type {}, which is not read here", path,
                  unread->name, name, unread->type->name);
    }
    if (found->shape != shape) {
      return fail(ErrorCode::invalid_argument, "{}: tensor {} ({}) has shape [{}]; the metadata ask for [{}]", path,
                  found->source().name, name, fmt::join(found->shape, ", "), fmt::join(shape, ", "));
    }
    const DType dtype = dtype_of(*found);
    if (found->source().type->dtype && found->lies_as_it_is()) {
      return TensorView{data_of(source_row(*found, 0), found->columns), dtype, shape, path};
    }
    CHORUS_TRY(const std::byte* const bytes,
               made_.get(found->name, shape, bytes_of(dtype), [found](std::byte* out) { make_elements(*found, out); }));
    return TensorView{bytes, dtype, shape, path};
  }

  Result<SharedQuantizedMatrix> quantized(const std::string& name) const override {
    const HfTensor* const found = find(name);
    if (found == nullptr || !found->is_matrix() || unread_piece(*found) != nullptr) return SharedQuantizedMatrix();
    const bool is_plain = found->source().type->dtype.has_value() && found->pieces.size() == 1;
    if (is_plain && !found->is_transposed) return SharedQuantizedMatrix();
    return SharedQuantizedMatrix(std::make_shared<GgufMatrix>(*found));
  }

  std::size_t files() const override { return file_.files(); }
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
    if (found->pieces.size() == 1 && !is_whole(*found)) return;  // others read the same
    for (const RowPiece& piece : found->pieces) file_.release(*piece.source);
  }

 private:
  // The first that cannot be read: an unknown type, or blocks in a vector.
  static const GgufTensor* unread_piece(const HfTensor& tensor) {
    const auto found = std::ranges::find_if(tensor.pieces, [&tensor](const RowPiece& piece) {
      const GgufTensorType& type = *piece.source->type;
      return !type.is_readable() || (tensor.columns == 1 && !type.dtype);
    });
    return found == tensor.pieces.end() ? nullptr : found->source;
  }
  static bool is_whole(const HfTensor& tensor) {
    std::int64_t elements = 1;
    for (const std::int64_t size : tensor.source().shape) elements *= size;
    return tensor.rows() * tensor.columns == elements;
  }
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
