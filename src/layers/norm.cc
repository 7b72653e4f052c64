#include "layers/norm.h"

#include "kernels/elementwise.h"

namespace chorus {

Norm::Norm(Parameters& parameters, const std::string& prefix, std::int64_t width, double eps, bool layer_norm)
    : width_(width),
      eps_(static_cast<float>(eps)),
      layer_norm_(layer_norm),
      weight_(parameters.add_vector(width, {{prefix + ".weight", {width}, 0, width, 0}})) {
  if (layer_norm_) bias_ = parameters.add_vector(width, {{prefix + ".bias", {width}, 0, width, 0}});
}

void Norm::forward(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t m,
                   std::int64_t ldx, float* out, std::int64_t ldo) const {
  if (layer_norm_) {
    layer_norm(context.pool, context.isa, x, m, width_, ldx, parameters.vector(weight_), parameters.vector(bias_), eps_,
               out, ldo);
  } else {
    rms_norm(context.pool, context.isa, x, m, width_, ldx, parameters.vector(weight_), eps_, out, ldo);
  }
}

void Norm::forward_heads(const LayerContext& context, const Parameters& parameters, float* x, std::int64_t m, int heads,
                         std::int64_t ldx) const {
  rms_norm_heads(context.pool, context.isa, x, m, heads, static_cast<int>(width_), ldx, parameters.vector(weight_),
                 eps_);
}

}  // namespace chorus
