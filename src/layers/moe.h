// Mixture of experts: each token goes to k experts; their outputs, weighted, are summed in ascending expert id whatever the
// batch (design.md section 1, rule 5). Over a tensor-parallel group every expert is cut like a dense layer, and each expert's
// tree comes first, then the sum over experts.
#pragma once

#include <string>
#include <vector>

#include "layers/mlp.h"
#include "layers/moe_routing.h"

namespace chorus {

class MoeLayer {
 public:
  struct Shape {
    std::int64_t hidden_size = 0;
    int intermediate_size = 0;  // of one expert
    int experts = 0;
    int experts_per_token = 0;
    MoeRouting routing = MoeRouting::softmax_top_k_normalized;
    double jitter = 0;
  };
  // `prefix`: "model.layers.0.mlp"; `experts`: names of expert e relative to PREFIX.experts.E, e.g. gate_proj or w1.
  MoeLayer(Parameters& parameters, TensorParallel tp, const std::string& prefix, const GatedMlp::Names& expert_names, const Shape& shape);

  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t rows, float* residual) const;

 private:
  struct Dispatch;
  Dispatch dispatch(const LayerContext& context, const Parameters& parameters, const float* x, std::int64_t rows) const;

  Shape shape_;
  ParameterId router_;
  std::vector<GatedMlp> experts_;
};

}  // namespace chorus
