#include "layers/norm.h"

namespace chorus {

Norm::Norm(Parameters& parameters, const std::string& prefix, std::int64_t width, double eps, NormKind kind,
           const HeadRows& heads)
    : width_(width),
      eps_(static_cast<float>(eps)),
      kind_(kind),
      weight_(parameters.add_vector(width, {{prefix + ".weight", {width}, 0, width, 0, heads}}, 0,
                                    kind == NormKind::rms_about_one ? 1.0F : 0.0F)) {
  if (kind == NormKind::layer) bias_ = parameters.add_vector(width, {{prefix + ".bias", {width}, 0, width, 0}});
}

void Norm::forward(const LayerContext& context, const Parameters& parameters, const View& x, const View& out) const {
  const bool is_layer_norm = kind_ == NormKind::layer || kind_ == NormKind::layer_unbiased;
  const float* bias = kind_ == NormKind::layer ? parameters.vector(bias_) : nullptr;
  norm(context.device, x, {parameters.vector(weight_), is_layer_norm, bias}, eps_, out);
}

void Norm::forward_heads(const LayerContext& context, const Parameters& parameters, const View& x) const {
  norm_heads(context.device, x, static_cast<int>(x.columns / width_), parameters.vector(weight_), eps_);
}

}  // namespace chorus
