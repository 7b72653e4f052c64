// RMS norm, or layer norm with a bias for the families that use it (phimoe).
#pragma once

#include <string>

#include "layers/context.h"
#include "layers/parameters.h"

namespace chorus {

class Norm {
 public:
  // `prefix`: NAME of NAME.weight and, for a layer norm, NAME.bias.
  Norm(Parameters& parameters, const std::string& prefix, std::int64_t width, double eps, bool layer_norm);
  // x: [m, width] float32; out: of float32 too, or of the device's product_dtype().
  void forward(const LayerContext& context, const Parameters& parameters, const View& x, const View& out) const;
  // In place over each head of a row (q and k norm of Qwen3); width is the head dimension.
  void forward_heads(const LayerContext& context, const Parameters& parameters, const View& x) const;

 private:
  std::int64_t width_;
  float eps_;
  bool layer_norm_;
  ParameterId weight_;
  ParameterId bias_ = 0;
};

}  // namespace chorus
