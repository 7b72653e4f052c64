// The weights of one rank, as the kernels read them: loaded for this alone, gone with it.
#pragma once

#include <vector>

#include "base/result.h"
#include "engine_thread.h"
#include "exec/load_weights.h"
#include "exec/model_runner.h"

namespace chorus::python {

class ParameterReader {
 public:
  // Of the rank that `facts` is of. Takes the time and the memory that loading its weights takes. Any thread.
  static Result<ParameterReader> open(const EngineFacts& facts);

  // Slices of the checkpoint's tensors, in order of declaration. A tensor may come in several slices of its rows.
  const std::vector<NamedParameter>& parameters() const { return named_; }
  // row_count x column_count.
  std::vector<float> read(std::size_t index) const;

 private:
  ParameterReader(LoadedWeights weights, DeclaredModel model)
      : weights_(std::move(weights)), model_(std::move(model)) {}

  LoadedWeights weights_;
  DeclaredModel model_;
  std::vector<NamedParameter> named_;
};

}  // namespace chorus::python
