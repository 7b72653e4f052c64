// How the matrices of a model folder are quantised, as its config.json says. A plain value.
#pragma once

#include <cstdint>
#include <vector>

#include "base/fields.h"

namespace chorus {

enum class QuantizationMethod : std::uint8_t { none, gguf, gptq, awq, compressed_tensors, fp8, mxfp4 };
constexpr auto enumeration_of(QuantizationMethod) {
  return Enumeration{"a quantization method", QuantizationMethod::mxfp4};
}

constexpr const char* name_of(QuantizationMethod method) {
  switch (method) {
    case QuantizationMethod::none:
      return "none";
    case QuantizationMethod::gguf:
      return "GGUF";
    case QuantizationMethod::gptq:
      return "GPTQ";
    case QuantizationMethod::awq:
      return "AWQ";
    case QuantizationMethod::compressed_tensors:
      return "compressed-tensors";
    case QuantizationMethod::fp8:
      return "FP8";
    case QuantizationMethod::mxfp4:
      return "MXFP4";
  }
  return "unknown";
}

// The weights of one of compressed-tensors' config_groups; of the other methods there is one.
struct WeightScheme {
  int bits = 0;
  bool is_float = false;
  bool is_symmetric = true;  // false: a zero point a scale
  int group_size = 0;        // columns that share a scale; 0: those of a row, or of the matrix
  int block_rows = 0;        // not 0: blocks of so many rows and group_size columns share one
  bool operator==(const WeightScheme&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.bits, self.is_float, self.is_symmetric, self.group_size, self.block_rows);
  }
};

struct WeightQuantization {
  QuantizationMethod method = QuantizationMethod::none;
  std::vector<WeightScheme> schemes;
  int zero_offset = 0;              // GPTQ: what is added to a zero point as it is stored
  bool rounds_activations = false;  // the folder is made for kernels that quantise activations too, which is not done
  bool operator==(const WeightQuantization&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.method, self.schemes, self.zero_offset, self.rounds_activations);
  }
};

}  // namespace chorus
