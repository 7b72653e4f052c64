#include "layers/norm.h"

namespace chorus {

Norm::Norm(Parameters& parameters, const std::string& prefix, std::int64_t width, double eps, bool layer_norm)
    : width_(width),
      eps_(static_cast<float>(eps)),
      layer_norm_(layer_norm),
      weight_(parameters.add_vector(width, {{prefix + ".weight", {width}, 0, width, 0}})) {
  if (layer_norm_) bias_ = parameters.add_vector(width, {{prefix + ".bias", {width}, 0, width, 0}});
}

void Norm::forward(const LayerContext& context, const Parameters& parameters, const View& x, const View& out) const {
  norm(context.device, x, parameters.vector(weight_), layer_norm_ ? parameters.vector(bias_) : nullptr, eps_, out);
}

void Norm::forward_heads(const LayerContext& context, const Parameters& parameters, const View& x) const {
  norm_heads(context.device, x, static_cast<int>(x.columns / width_), parameters.vector(weight_), eps_);
}

}  // namespace chorus
