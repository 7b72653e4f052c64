// The linear family. A column-parallel layer gives a rank its own outputs and needs no collective; a row-parallel layer
// owns whole segments of the inner dimension and adds the partial sums over the group in the tree of the promise.
#pragma once

#include <string>
#include <vector>

#include "layers/context.h"
#include "layers/parameters.h"

namespace chorus {

// One logical matrix [rows, columns] of the checkpoint (NAME.weight, NAME.bias).
struct MatrixName {
  std::string prefix;     // "model.layers.0.mlp.gate_proj"
  std::int64_t rows = 0;  // of the whole matrix
  bool bias = false;
  // Where it is a part of a larger matrix of that name: its first row there, and how many rows that has.
  std::int64_t first_row = 0, rows_of_all = 0;
  bool transposed = false;  // the checkpoint has [columns, rows]
  // Not 0: the tensors PREFIX and PREFIX_bias have this matrix of all of so many experts, as [experts, columns, rows];
  // its rows are every row_step-th from first_row on.
  int experts = 0, expert = 0, row_step = 1;
  HeadRows heads = {};
};

// q, k and v. Query heads are cut over the group; KV heads too, or replicated when there are fewer than ranks.
class QkvParallelLinear {
 public:
  struct Shape {
    std::int64_t hidden_size = 0;
    int heads = 0, kv_heads = 0, head_dim = 0;
    bool bias = false;
    // Behind the prefix; all alike: one matrix, the rows of q first.
    std::string q = "q_proj", k = "k_proj", v = "v_proj";
    bool transposed = false;      // the checkpoint has [hidden_size, rows]
    HeadRows head_rows = {};      // of q and k
    bool q_every_second = false;  // q_proj has something else behind each head of q
  };
  QkvParallelLinear(Parameters& parameters, TensorParallel tp, const std::string& prefix, const Shape& shape);

  int heads() const { return heads_; }  // of this rank
  int kv_heads() const { return kv_heads_; }
  std::int64_t rows() const { return rows_; }  // (heads + 2 kv_heads) * head_dim
  // [m, rows()] from the scratch: q of all heads, then k, then v.
  View forward(const LayerContext& context, const Parameters& parameters, const ProductInput& x) const;

 private:
  int heads_ = 0, kv_heads_ = 0;
  std::int64_t rows_ = 0;
  ParameterId weight_ = 0;
  bool has_bias_ = false;
  ParameterId bias_ = 0;
};

// y += W x + b with the inner dimension cut over the group in whole segments. `units`: how many shardable units (heads,
// intermediate columns) the inner dimension has.
class RowParallelLinear {
 public:
  RowParallelLinear(Parameters& parameters, TensorParallel tp, const MatrixName& matrix, std::int64_t columns,
                    int units);

  PackedLinear weight(const Parameters& parameters) const { return parameters.linear(weight_); }
  // x: this rank's columns, [m, columns / tp]; y: [m, rows], the whole sum is added to it on every rank (bias once).
  Result<void> add_to(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                      const View& y) const;
  // y = this rank's part of the sum, without bias: no collective. The parts are for all_reduce_tree().
  void partial(const LayerContext& context, const Parameters& parameters, const ProductInput& x, const View& y) const;

 private:
  std::int64_t rows_;
  ParameterId weight_;
  bool has_bias_;
  ParameterId bias_ = 0;
};

// y = W x + b, cut by rows over the group: a rank has rows / size of them.
class ColumnParallelLinear {
 public:
  ColumnParallelLinear(Parameters& parameters, TensorParallel tp, const MatrixName& matrix, std::int64_t columns);

  // [m, this rank's rows] from the scratch.
  View forward(const LayerContext& context, const Parameters& parameters, const ProductInput& x) const;

 private:
  ParameterId weight_ = 0;
  bool has_bias_ = false;
  ParameterId bias_ = 0;
};

// gate and up over the same input, each cut by rows over the group (the rows of one must divide by the group's size),
// and the activation between them and the next matrix, which has `next_segments` segments on this rank.
class GateUpParallelLinear {
 public:
  GateUpParallelLinear(Parameters& parameters, TensorParallel tp, std::int64_t columns, const MatrixName& gate,
                       const MatrixName& up, int next_segments, Activation activation = Activation::silu);

  // activation(gate x) * up x of this rank's rows, as x of `next`; in memory of the scratch's scope around the call.
  ProductInput forward(const LayerContext& context, const Parameters& parameters, const ProductInput& x,
                       const RowParallelLinear& next) const;

 private:
  Activation activation_;
  std::int64_t rows_ = 0;
  ParameterId weight_ = 0;
  bool has_bias_ = false;
  ParameterId bias_ = 0;
};

}  // namespace chorus
