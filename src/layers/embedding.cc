#include "layers/embedding.h"

#include <algorithm>

namespace chorus {
namespace {

std::int64_t rows_a_rank(std::int64_t vocab_size, TensorParallel tp) {
  return (vocab_size + tp.size - 1) / tp.size;
}

std::int64_t own_rows(std::int64_t vocab_size, TensorParallel tp) {
  const std::int64_t share = rows_a_rank(vocab_size, tp);
  return std::clamp<std::int64_t>(vocab_size - tp.rank * share, 0, share);
}

}  // namespace

RowShare logits_share(std::int64_t m, int rank, int ranks) {
  const auto first_of = [&](std::int64_t r) { return (m * r + ranks - 1) / ranks; };
  return {first_of(rank), first_of(rank + 1) - first_of(rank)};
}

ParallelLmHead::ParallelLmHead(Parameters& parameters, TensorParallel tp, const std::string& tensor,
                               const std::string& bias_tensor, std::int64_t vocab_size, std::int64_t hidden_size)
    : vocab_size_(vocab_size), own_rows_(own_rows(vocab_size, tp)), has_bias_(!bias_tensor.empty()) {
  const std::int64_t first = tp.rank * rows_a_rank(vocab_size, tp);
  weight_ =
      parameters.add_output({own_rows_, hidden_size, 1}, {{tensor, {vocab_size, hidden_size}, first, own_rows_, 0}});
  if (has_bias_) bias_ = parameters.add_vector(own_rows_, {{bias_tensor, {vocab_size}, first, own_rows_, 0}});
}

Result<View> ParallelLmHead::forward(const LayerContext& context, const Parameters& parameters,
                                     const ProductInput& x) const {
  const LinearEpilogue epilogue{has_bias_ ? parameters.vector(bias_) : nullptr, false};
  const PackedLinear weight = parameters.linear(weight_);
  const std::int64_t m = x.rows.rows;
  const int ranks = context.tp.size();
  if (ranks == 1) {
    const View logits = take_product(context.device, weight, m);
    linear(context.device, weight, x, logits, epilogue);
    return logits;
  }
  const std::int64_t rows = logits_share(m, context.tp.rank(), ranks).count;
  const View logits = context.device.take(DType::float32, rows, vocab_size_);
  const Scratch::Scope scope(context.device.scratch());
  const View own = context.device.take(DType::float32, m, own_rows_);
  linear(context.device, weight, x, own, epilogue);
  CHORUS_TRY_VOID(exchange(context, own, logits));
  return logits;
}

Result<void> ParallelLmHead::exchange(const LayerContext& context, const View& own, const View& logits) const {
  CpuDevice& cpu = context.cpu();
  const int ranks = context.tp.size();
  const std::int64_t width = (vocab_size_ + ranks - 1) / ranks;  // of the vocabulary, on every rank but the last ones
  const std::int64_t rows = logits.rows;
  float* parts = cpu.scratch().take_array<float>(rows * vocab_size_);
  std::size_t* to_bytes = cpu.scratch().take_array<std::size_t>(ranks);
  std::size_t* from_bytes = cpu.scratch().take_array<std::size_t>(ranks);
  const auto columns = [&](int rank) { return std::clamp<std::int64_t>(vocab_size_ - rank * width, 0, width); };
  for (int rank = 0; rank < ranks; ++rank) {
    to_bytes[rank] = static_cast<std::size_t>(logits_share(own.rows, rank, ranks).count * own_rows_) * sizeof(float);
    from_bytes[rank] = static_cast<std::size_t>(rows * columns(rank)) * sizeof(float);
  }
  const auto size = static_cast<std::size_t>(ranks);
  CHORUS_TRY_VOID(context.tp.all_to_all_v(
      std::as_bytes(std::span(own.floats(), static_cast<std::size_t>(own.rows * own_rows_))), {to_bytes, size},
      std::as_writable_bytes(std::span(parts, static_cast<std::size_t>(rows * vocab_size_))), {from_bytes, size}));
  // Each part is [rows, its columns], one behind the other.
  cpu.pool().for_range(rows, [&](std::int64_t begin, std::int64_t end) {
    for (int rank = 0; rank < ranks; ++rank) {
      const std::int64_t count = columns(rank);
      const float* part = parts + rows * std::min(rank * width, vocab_size_);
      for (std::int64_t row = begin; row < end; ++row) {
        float* to = logits.floats() + row * vocab_size_ + std::min(rank * width, vocab_size_);
        std::copy_n(part + row * count, count, to);
      }
    }
  });
  return {};
}

VocabParallelEmbedding::VocabParallelEmbedding(Parameters& parameters, TensorParallel tp, const std::string& tensor,
                                               std::int64_t vocab_size, std::int64_t hidden_size, bool is_output)
    : hidden_size_(hidden_size),
      first_row_(tp.rank * rows_a_rank(vocab_size, tp)),
      own_rows_(own_rows(vocab_size, tp)),
      is_packed_(is_output) {
  std::vector<ParameterSource> rows = {{tensor, {vocab_size, hidden_size}, first_row_, own_rows_, 0}};
  weight_ = is_packed_ ? parameters.add_output({own_rows_, hidden_size, 1}, std::move(rows))
                       : parameters.add_table(own_rows_, hidden_size, std::move(rows));
}

VocabParallelEmbedding::VocabParallelEmbedding(const ParallelLmHead& head, TensorParallel tp, std::int64_t vocab_size,
                                               std::int64_t hidden_size)
    : hidden_size_(hidden_size),
      first_row_(tp.rank * rows_a_rank(vocab_size, tp)),
      own_rows_(own_rows(vocab_size, tp)),
      is_packed_(true),
      weight_(head.weight()) {}

Result<void> VocabParallelEmbedding::forward(const LayerContext& context, const Parameters& parameters,
                                             const StepInput& step, const View& out) const {
  const PackedLinear plain{{own_rows_, hidden_size_, 1}, parameters.dtype(), parameters.isa(), nullptr};
  EmbeddingRows rows{plain, is_packed_, first_row_};
  if (is_packed_) {
    rows.weight = parameters.linear(weight_);
  } else {
    rows.weight.data = parameters.table(weight_);
  }
  look_up(context.device, rows, step, out);
  if (context.tp.size() == 1) return {};
  return context.tp.all_reduce_tree({out.floats(), static_cast<std::size_t>(out.rows * hidden_size_)});
}

PositionEmbedding::PositionEmbedding(Parameters& parameters, const std::string& tensor, std::int64_t positions,
                                     std::int64_t hidden_size)
    : positions_(positions),
      hidden_size_(hidden_size),
      table_(parameters.add_table(positions, hidden_size, {{tensor, {positions, hidden_size}, 0, positions, 0}})) {}

void PositionEmbedding::forward(const LayerContext& context, const Parameters& parameters, const StepInput& step,
                                const View& out) const {
  const PackedLinear table{
      {positions_, hidden_size_, 1}, parameters.dtype(), parameters.isa(), parameters.table(table_)};
  add_positions(context.device, table, step, out);
}

}  // namespace chorus
