// Cosines and sines of the rotary embedding for every position, made once an engine from RopeConfig.
//
// Frequencies: theta^(-2i/d) (Su et al., "RoFormer", 2021, section 3.4.2). Scalings: linear (Chen et al., "Extending
// context window ... via positional interpolation", 2023, eq. 4), yarn (Peng et al., "YaRN", 2023, sections 3.2
// and 3.4), longrope (Ding et al., "LongRoPE", 2024), llama3 (as published with Llama 3.1: wavelength bands between low
// and high frequency factor).
#pragma once

#include <vector>

#include "config/model_config.h"
#include "tensor/device.h"

namespace chorus {

class RotaryTable {
 public:
  RotaryTable(const RopeConfig& rope, int rotary_dim, int max_position_embeddings, int positions);
  int rotary_dim() const { return rotary_dim_; }
  int positions() const { return positions_; }
  // For a device that cannot read this process's memory: copies the table to its own. Errors: resource_exhausted.
  Result<void> move_to(Device& device);
  // [positions, rotary_dim]: rotary_dim / 2 cosines, then as many sines.
  const float* cos_sin() const { return on_device_ != nullptr ? on_device_ : values_.data(); }

 private:
  int rotary_dim_;
  int positions_;
  std::vector<float> values_;
  const float* on_device_ = nullptr;
};

// Of a model: of `rope`, then, where layers with a window have another, of `window_rope`.
std::vector<RotaryTable> make_rotary_tables(const ModelConfig& model, int positions);

}  // namespace chorus
