// Which format each matrix of a model is packed in. A function of the model's configuration and --quantization alone,
// so that whoever packs the weights and whoever computes with them agree.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "config/engine_config.h"
#include "config/model_config.h"
#include "kernels/linear.h"

namespace chorus {

struct ParameterSource;

class LinearFormats {
 public:
  LinearFormats() = default;  // all in the model's dtype
  // `quantization`: what compute_quantization() gave. int8: all matrices in 8 bits. int4: in 4, the output matrix in 8.
  // automatic: those of model.stored_formats.
  LinearFormats(Quantization quantization, const ModelConfig& model);

  // Of a matrix of the model's dtype with rows from `sources`. automatic: of blocks that segments would cut, rows of
  // which no format has all, or what is stored as plain, the dtype.
  LinearFormat of(const LinearShape& shape, const std::vector<ParameterSource>& sources, DType dtype) const;
  // The same of the matrix that gives the logits, which is the embedding too where they are tied.
  LinearFormat of_output(const LinearShape& shape, const std::vector<ParameterSource>& sources, DType dtype) const;
  // Whether the checkpoint has some of them quantised, in whatever form.
  bool is_quantized(const std::vector<ParameterSource>& sources) const;

 private:
  LinearFormat stored(const std::vector<ParameterSource>& sources, DType dtype) const;

  Quantization quantization_ = Quantization::none;
  std::unordered_map<std::string, LinearFormat::Kind> stored_;
};

}  // namespace chorus
