#include "weights/quantized_checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <vector>

#include "weights/made_tensors.h"
#include "weights/quantized_parts.h"

namespace chorus {
namespace {

enum class Storage : std::uint8_t { gptq_or_awq, packed, int8, fp8, mxfp4 };

// Beside the matrices: what a format keeps for them, and the scales of activations and KV caches, which are not used.
constexpr std::string_view part_endings[] = {".qweight",
                                             ".qzeros",
                                             ".scales",
                                             ".g_idx",
                                             ".weight_packed",
                                             ".weight_scale",
                                             ".weight_shape",
                                             ".weight_g_idx",
                                             ".weight_zero_point",
                                             ".weight_scale_inv",
                                             ".input_scale",
                                             ".input_zero_point",
                                             ".activation_scale",
                                             ".output_scale",
                                             ".k_scale",
                                             ".v_scale",
                                             "_blocks",
                                             "_scales"};

// "a.b" of "a.b.qweight".
std::optional<std::string> without(const std::string& name, std::string_view ending) {
  if (!name.ends_with(ending)) return std::nullopt;
  return name.substr(0, name.size() - ending.size());
}

class QuantizedCheckpoint final : public Checkpoint {
 public:
  QuantizedCheckpoint(std::unique_ptr<SafetensorsCheckpoint> files, const WeightQuantization& quantization)
      : files_(std::move(files)), quantization_(quantization) {
    for (const std::string& name : files_->names()) index(name);
  }

  bool has(const std::string& name) const override { return storage_.contains(name) || files_->has(name); }

  Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const override {
    CHORUS_TRY(const SharedQuantizedMatrix matrix, quantized(name));
    if (matrix == nullptr) return files_->tensor(name, shape);
    const bool stacked = storage_.at(name) == Storage::mxfp4;
    const bool fits = stacked
                          ? shape.size() == 3 && shape[1] == matrix->columns() && shape[0] * shape[2] == matrix->rows()
                          : shape == std::vector{matrix->rows(), matrix->columns()};
    if (!fits) {
      return fail(ErrorCode::invalid_argument, "{}: tensor {} ({}) is of {} rows of {}; config.json asks for [{}]",
                  files_->source(), name, name_of(quantization_.method), matrix->rows(), matrix->columns(),
                  fmt::join(shape, ", "));
    }
    const auto fill = [&](std::byte* out) {
      auto* values = reinterpret_cast<float*>(out);
      stacked ? read_turned(*matrix, shape[2], values) : read_rows(*matrix, values);
    };
    CHORUS_TRY(const std::byte* const bytes, made_.get(name, shape, sizeof(float), fill));
    return TensorView{bytes, DType::float32, shape, files_->source()};
  }

  Result<SharedQuantizedMatrix> quantized(const std::string& name) const override {
    const auto found = storage_.find(name);
    if (found == storage_.end()) return SharedQuantizedMatrix();
    const std::string module = without(name, ".weight").value_or(name);
    switch (found->second) {
      case Storage::gptq_or_awq:
        return read_gptq_or_awq(*files_, module, quantization_);
      case Storage::packed:
        return read_packed(*files_, module, quantization_);
      case Storage::int8:
        return read_int8(*files_, module, quantization_);
      case Storage::fp8:
        return read_fp8(*files_, module, quantization_);
      case Storage::mxfp4:
        return read_mxfp4(*files_, module);
    }
    return SharedQuantizedMatrix();
  }

  std::size_t files() const override { return files_->files(); }
  std::vector<std::string> names() const override {
    std::vector<std::string> names = files_->names();
    std::erase_if(names, [&](const std::string& name) { return storage_.contains(name) || is_part(name); });
    for (const auto& [name, storage] : storage_) names.push_back(name);
    std::ranges::sort(names);
    return names;
  }

  std::string digest() const override { return files_->digest(); }

  void release(const std::string& name) const override {
    made_.release(name);
    files_->release(name);
    if (!storage_.contains(name)) return;
    const std::string module = without(name, ".weight").value_or(name);
    for (const std::string_view ending : part_endings) files_->release(module + std::string(ending));
  }

 private:
  void index(const std::string& name) {
    using Method = QuantizationMethod;
    const Method method = quantization_.method;
    if (method == Method::gptq || method == Method::awq) {
      if (const auto module = without(name, ".qweight")) storage_[*module + ".weight"] = Storage::gptq_or_awq;
    } else if (method == Method::mxfp4) {
      if (const auto module = without(name, "_blocks")) storage_[*module] = Storage::mxfp4;
    } else if (const auto module = without(name, ".weight_packed")) {
      if (method == Method::compressed_tensors) storage_[*module + ".weight"] = Storage::packed;
    } else if (name.ends_with(".weight")) {
      const std::string_view type = files_->stored(name)->type;
      if (type == "F8_E4M3") storage_[name] = Storage::fp8;
      if (type == "I8" && method == Method::compressed_tensors) storage_[name] = Storage::int8;
    }
  }

  static bool is_part(const std::string& name) {
    return std::ranges::any_of(part_endings, [&](std::string_view ending) { return name.ends_with(ending); });
  }

  static void read_rows(const QuantizedMatrix& matrix, float* out) {
    for (std::int64_t row = 0; row < matrix.rows(); ++row, out += matrix.columns()) {
      matrix.read_floats(row, 0, matrix.columns(), out);
    }
  }

  // [experts, columns, rows of one] as the tensor of that name has them.
  static void read_turned(const QuantizedMatrix& matrix, std::int64_t rows, float* out) {
    std::vector<float> values(static_cast<std::size_t>(matrix.columns()));
    for (std::int64_t row = 0; row < matrix.rows(); ++row) {
      matrix.read_floats(row, 0, matrix.columns(), values.data());
      float* to = out + row / rows * rows * matrix.columns() + row % rows;
      for (const float value : values) {
        *to = value;
        to += rows;
      }
    }
  }

  std::unique_ptr<SafetensorsCheckpoint> files_;
  WeightQuantization quantization_;
  std::map<std::string, Storage> storage_;  // of the quantised matrices
  mutable MadeTensors made_;
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> make_quantized_checkpoint(std::unique_ptr<SafetensorsCheckpoint> files,
                                                              const WeightQuantization& quantization) {
  for (const std::string& name : files->names()) {
    if (quantization.method != QuantizationMethod::awq || !name.ends_with(".act.scales")) continue;
    return fail(ErrorCode::invalid_argument,
                "{}: {} scales activations (AutoAWQ's ScaledActivation), which is not done here: use the model's own "
                "weights, or a GGUF file of it",
                files->source(), name);
  }
  return std::unique_ptr<Checkpoint>(std::make_unique<QuantizedCheckpoint>(std::move(files), quantization));
}

}  // namespace chorus
