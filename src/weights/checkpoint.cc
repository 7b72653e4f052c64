#include "weights/checkpoint.h"

#include <algorithm>
#include <map>

#include "gguf/architecture.h"
#include "gguf/gguf_file.h"
#include "weights/gguf_checkpoint.h"
#include "weights/quantized_checkpoint.h"
#include "weights/safetensors_checkpoint.h"

namespace chorus {
namespace {

bool is_quantized_folder(const WeightQuantization& quantization) {
  return quantization.method != QuantizationMethod::none && quantization.method != QuantizationMethod::gguf;
}

// What holds the numbers of both: the experts of a layer need not be alike.
LinearFormat::Kind common_kind(LinearFormat::Kind a, LinearFormat::Kind b) {
  if (holds_groups_of(a, b)) return a;
  return holds_groups_of(b, a) ? b : LinearFormat::plain;
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> open_checkpoint(const std::string& directory, bool tied_head,
                                                    const WeightQuantization& quantization) {
  if (is_gguf(directory)) return open_gguf_checkpoint(directory, tied_head);
  CHORUS_TRY(auto files, open_safetensors(directory, tied_head));
  if (is_quantized_folder(quantization)) return make_quantized_checkpoint(std::move(files), quantization);
  return std::unique_ptr<Checkpoint>(std::move(files));
}

Result<std::vector<StoredFormat>> read_stored_formats(const std::string& directory,
                                                      const WeightQuantization& quantization) {
  if (!is_quantized_folder(quantization)) return std::vector<StoredFormat>();
  auto files = open_safetensors(directory, false);
  if (!files.ok() && files.error().code == ErrorCode::not_found) return std::vector<StoredFormat>();
  if (!files.ok()) return files.error();
  CHORUS_TRY(const auto checkpoint, make_quantized_checkpoint(std::move(*files), quantization));
  std::map<std::string, LinearFormat::Kind> kinds;
  for (const std::string& name : checkpoint->names()) {
    CHORUS_TRY(const SharedQuantizedMatrix matrix, checkpoint->quantized(name));
    if (matrix == nullptr) continue;
    const auto [known, is_new] = kinds.try_emplace(name_of_all_experts(name), matrix->kind());
    if (!is_new) known->second = common_kind(known->second, matrix->kind());
  }
  std::vector<StoredFormat> formats;
  for (const auto& [name, kind] : kinds) formats.push_back({name, kind});
  return formats;
}

}  // namespace chorus
