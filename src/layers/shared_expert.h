// A mixture of experts beside an expert that every row goes to (DeepSeekMoE: Dai et al., 2024, section 3.2).
#pragma once

#include <string>

#include "layers/moe.h"

namespace chorus {

class SharedMoe {
 public:
  // `prefix`: "model.layers.0.mlp". The shared expert is PREFIX.SHARED; with `gated` what it adds is multiplied by the
  // sigmoid of PREFIX.SHARED_gate x (Qwen2-MoE).
  struct Shared {
    std::string name = "shared_experts";
    int intermediate_size = 0;
    bool gated = false;
  };
  SharedMoe(Parameters& parameters, TensorParallel tp, const std::string& prefix, MoeLayer experts,
            std::int64_t hidden_size, const Shared& shared);

  // On CPUs; as MoeLayer::add_to(), then the shared expert's part.
  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                      const View& residual) const;
  std::string needs_cpu() const { return experts_.needs_cpu(); }

 private:
  MoeLayer experts_;
  GatedMlp shared_;
  bool gated_;
  ParameterId gate_ = 0;  // float32, as a router
};

}  // namespace chorus
