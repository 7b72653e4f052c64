// RMS norm or layer norm of a row.
#pragma once

#include <cstdint>
#include <string>

#include "layers/context.h"
#include "layers/parameters.h"

namespace chorus {

enum class NormKind : std::uint8_t {
  rms,
  rms_about_one,   // RMS norm whose weights are kept less 1 (Gemma)
  layer,           // with a bias
  layer_unbiased,  // layer norm without
};

class Norm {
 public:
  // `prefix`: NAME of NAME.weight and, for a layer norm, NAME.bias.
  Norm(Parameters& parameters, const std::string& prefix, std::int64_t width, double eps, NormKind kind = NormKind::rms,
       const HeadRows& heads = {});
  // x: [m, width] float32; out: of float32 too, or of the device's product_dtype().
  void forward(const LayerContext& context, const Parameters& parameters, const View& x, const View& out) const;
  // In place over each head of a row (q and k norm of Qwen3); width is the head dimension.
  void forward_heads(const LayerContext& context, const Parameters& parameters, const View& x) const;

 private:
  std::int64_t width_;
  float eps_;
  NormKind kind_;
  ParameterId weight_;
  ParameterId bias_ = 0;
};

}  // namespace chorus
