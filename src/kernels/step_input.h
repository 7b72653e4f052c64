// The rows of one step as operations read them. The host lays them out; a device that cannot read the host's memory
// gets a copy by upload() (ops.h), once a step.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/attention_cuda.h"

namespace chorus {

// The copy on a GPU. Sequences of one row stand first: they are attended to in another way (attention_cuda.h).
struct CudaStepInput {
  const std::int32_t* tokens = nullptr;
  const std::int32_t* positions = nullptr;
  const std::int32_t* wanted = nullptr;
  const std::int64_t* slots = nullptr;  // of the KV memory, in tokens; one a row
  const std::int32_t* tables = nullptr;
  const CudaSequence* sequences = nullptr;
  std::int32_t single_rows = 0, several_rows = 0;                    // sequences of one row, and others
  std::int32_t single_positions_max = 0, several_positions_max = 0;  // start + count of any
  std::int32_t rows_max = 0;                                         // of one sequence
};

// `tokens` and `positions` are one a row; sequences tile the rows in order. `wanted`: the rows whose logits are asked
// for.
struct StepInput {
  std::span<const std::int32_t> tokens;
  std::span<const std::int32_t> positions;
  std::span<const AttentionSequence> sequences;
  std::span<const std::int32_t> wanted = {};
  CudaStepInput on_gpu = {};
  // The same rows for layers that keep their keys elsewhere (KvCacheLayer::table): of each further block table of the
  // sequences one input.
  std::span<StepInput> other_tables = {};

  const StepInput& of_table(int table) const {
    return table == 0 ? *this : other_tables[static_cast<std::size_t>(table - 1)];
  }
  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
};

}  // namespace chorus
