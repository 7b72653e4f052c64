// Mixture of experts: each token goes to k experts; their outputs, weighted, are summed in ascending expert id whatever
// the batch and wherever the experts live (design.md section 1, rule 5). Two ways to use several ranks:
//
// Over a tensor-parallel group every expert is cut like a dense layer. Each expert's tree comes first, then the sum
// over experts, so all k outputs of a row cross the ranks (docs/decisions/007-moe-reduction.md), in one collective a
// layer: few rows by an all_reduce of [rows * k, hidden], many by a reduce_scatter of it and an all_gather of [rows,
// hidden].
//
// With expert parallelism an expert lives whole on some rank of the ep group, and rows travel. The rows of a dp rank
// are the same on all of its tp ranks; each takes an equal share as their home. A home rank sends a row once to every
// rank that has one of its experts, gets the outputs back, sums them, and the tp group gathers the rows. Outputs are
// not summed where they are made: float sums of two experts on one rank would be another order. Volume, a home row: at
// most min(k, ranks) * 4 * (hidden + k) bytes there, k * 4 * hidden bytes back, and 4 * hidden bytes to each other tp
// rank. A rank without rows calls the same collectives.
#pragma once

#include <span>
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
    MoeRouter router = {};
    std::string router_name = "gate";  // behind the prefix
    bool router_bias = false;
    std::string correction = {};  // of the router: the name behind the prefix; empty: none
    Activation activation = Activation::silu;
    // The checkpoint has the experts in one tensor each of gate and up, row by row in turn, and of down, with biases
    // (gpt-oss): PREFIX.experts.NAME, NAME_bias.
    bool stacked = false;
  };
  // `prefix`: "model.layers.0.mlp"; `experts`: names of expert e relative to PREFIX.experts.E, e.g. gate_proj or w1.
  MoeLayer(Parameters& parameters, TensorParallel tp, const ExpertParallel& ep, const std::string& prefix,
           const GatedMlp::Names& expert_names, const Shape& shape);

  // On CPUs. The number of rows is the same on all ranks of context.tp, may differ over context.ep, and may be 0.
  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                      const View& residual) const;

  std::string needs_cpu() const { return "experts"; }

 private:
  struct Buckets;
  struct Journey;

  void declare_router(Parameters& parameters, const std::string& prefix);
  GatedMlp declare_expert(Parameters& parameters, TensorParallel tp, const std::string& prefix,
                          const GatedMlp::Names& names, int expert) const;
  // [rows, k], in scratch: the choices of each row in ascending expert id.
  ExpertChoice* choose(const LayerContext& context, const Parameters& parameters, const float* x,
                       std::int64_t rows) const;
  // Sorts `count` inputs by the expert they are for: bucket_of(i) in [0, experts_.size()), or -1 for none.
  template <typename BucketOf>
  Buckets sort(const LayerContext& context, std::int64_t count, const BucketOf& bucket_of) const;
  // outputs = each expert of this rank over its bucket of inputs, both [buckets.count, hidden].
  void run_experts(const LayerContext& context, const Parameters& parameters, const Buckets& buckets,
                   const float* inputs, float* outputs) const;
  // sums[row] (+)= the weighted outputs of the row's choices; choice i's output is row output_of[i] of `outputs`.
  void combine(const LayerContext& context, const Parameters& parameters, const ExpertChoice* choices,
               const std::int64_t* output_of, const float* outputs, std::int64_t rows, bool accumulate,
               float* sums) const;

  Result<void> add_tensor_parallel(const LayerContext& context, const Parameters& parameters, const float* x,
                                   std::int64_t rows, float* residual) const;

  // The trees of all rows' experts, each finished where the row is at home; then as gather_and_add().
  Result<void> scatter_and_combine(const LayerContext& context, const Parameters& parameters,
                                   const ExpertChoice* choices, const Buckets& buckets, const float* outputs,
                                   std::int64_t rows, float* residual) const;

  // Each tp rank is the home of an equal share of the rows, in order.
  static std::int64_t first_home_row(const LayerContext& context, std::int64_t rows, int tp_rank) {
    return rows * tp_rank / context.tp.size();
  }
  // sums: [rows, hidden], of which this rank has its home rows; adds all of them to residual.
  Result<void> gather_and_add(const LayerContext& context, float* sums, std::int64_t rows, float* residual) const;

  // Expert parallelism, in moe_expert_parallel.cc.
  Result<void> add_expert_parallel(const LayerContext& context, const Parameters& parameters, const float* x,
                                   std::int64_t rows, float* residual) const;
  const ExpertPlacement& placement_in(const LayerContext& context) const;
  Journey plan_journey(const LayerContext& context, const ExpertChoice* choices, std::int64_t rows) const;
  // Returns the rows that came here.
  Result<std::span<std::byte>> send_rows(const LayerContext& context, const float* x, const Journey& journey) const;
  // Runs the experts on them, and waits for the outputs of this rank's own rows.
  Result<void> send_back(const LayerContext& context, const Parameters& parameters, std::span<std::byte> arrived,
                         const Journey& journey) const;

  Shape shape_;
  ParameterId router_ = 0, router_bias_ = 0, correction_ = 0;
  ParameterId output_biases_ = 0;  // of stacked experts: [experts, hidden]
  int ranks_ = 1;                  // of the expert-parallel group
  ExpertPlacement placement_;      // with several ranks, unless experts move
  int moving_layer_ = -1;          // index in ExpertSlots if they do
  std::vector<GatedMlp> experts_;  // of this rank's slots, or all of them, cut
};

}  // namespace chorus
