// Token embedding and output matrix. A tied model keeps one packed copy: the embedding of a token is a row unpacked
// from it. Over a tensor-parallel group the vocabulary is cut in equal parts (the last one padded): a rank looks up its
// own rows, the others give zero, and adding zeros is exact.
#pragma once

#include <span>
#include <string>

#include "layers/context.h"
#include "layers/parameters.h"

namespace chorus {

// Which of m rows a rank gets the logits of: shares that differ by one row at most, rank 0's being the largest.
struct RowShare {
  std::int64_t first = 0, count = 0;
};
RowShare logits_share(std::int64_t m, int rank, int ranks);

class ParallelLmHead {
 public:
  // Weight `tensor` [vocab_size, hidden_size]; `bias_tensor` empty for none.
  ParallelLmHead(Parameters& parameters, TensorParallel tp, const std::string& tensor, const std::string& bias_tensor,
                 std::int64_t vocab_size, std::int64_t hidden_size);

  // x: [m, hidden]. Returns [count of logits_share(m, rank), vocab_size] from the scratch. Every rank multiplies all
  // rows by its part of the vocabulary and gets whole rows back, its share of them, so that the ranks sample side by
  // side.
  Result<View> forward(const LayerContext& context, const Parameters& parameters, const ProductInput& x) const;
  ParameterId weight() const { return weight_; }

 private:
  // own: [m, own_rows_] of all ranks; logits: of this one's rows.
  Result<void> exchange(const LayerContext& context, const View& own, const View& logits) const;

  std::int64_t vocab_size_, own_rows_;
  ParameterId weight_;
  bool has_bias_;
  ParameterId bias_ = 0;
};

class VocabParallelEmbedding {
 public:
  // Of its own. `is_output`: the tensor is the output matrix, too, on another stage: it is packed as that is.
  VocabParallelEmbedding(Parameters& parameters, TensorParallel tp, const std::string& tensor, std::int64_t vocab_size,
                         std::int64_t hidden_size, bool is_output = false);
  // Tied to the output matrix.
  VocabParallelEmbedding(const ParallelLmHead& head, TensorParallel tp, std::int64_t vocab_size,
                         std::int64_t hidden_size);

  // out: [step.rows(), hidden] float32, contiguous. Token ids are in [0, vocab_size).
  Result<void> forward(const LayerContext& context, const Parameters& parameters, const StepInput& step,
                       const View& out) const;

 private:
  std::int64_t hidden_size_, first_row_, own_rows_;
  bool is_packed_;
  ParameterId weight_;
};

// A learned vector for each position (GPT-2), whole on every rank.
class PositionEmbedding {
 public:
  PositionEmbedding(Parameters& parameters, const std::string& tensor, std::int64_t positions,
                    std::int64_t hidden_size);
  // out: [step.rows(), hidden] float32; the vector of each row's position is added.
  void forward(const LayerContext& context, const Parameters& parameters, const StepInput& step, const View& out) const;

 private:
  std::int64_t positions_, hidden_size_;
  ParameterId table_;
};

}  // namespace chorus
