// How a call of attention is cut into tiles, and what its threads work in: what attention.cc and attention_split.cc
// share. Private to attention*.cc.
#pragma once

#include <atomic>
#include <span>

#include "kernels/attention.h"
#include "kernels/attention_tile.h"
#include "tensor/scratch.h"

namespace chorus {

// What one thread works in.
struct AttentionWorkspace {
  float* packed = nullptr;   // q of a tile
  float* weights = nullptr;  // of a partition
  float* state = nullptr;    // of a tile
  float* later = nullptr;    // of a tile
};

struct AttentionPlan {
  const AttentionKernels* kernels = nullptr;
  AttentionCall call;
  std::span<const AttentionTile> tiles;
  std::span<const AttentionWorkspace> work;  // one a thread

  // Floats of one lane in a state.
  std::int64_t lane_floats() const { return attention_state_values + call.head_dim_padded; }
};

// Tiles depend on the sequences and the shape alone: every rank that asks for the same rows gets the same list. The
// plan's memory is of `scratch`, in the caller's scope.
AttentionPlan plan_attention(ThreadPool& pool, Scratch& scratch, Isa isa, const KvCacheLayer& cache,
                             std::span<const AttentionSequence> sequences, const AttentionParams& params,
                             const float* q, std::int64_t ldq, float* out, std::int64_t ldo);

// First and last + 1 partition that any lane of the tile sees; there is at least one.
AttentionSpan partitions_of(const AttentionCall& call, const AttentionTile& tile);

void check_layout(const KvCacheLayer& cache);
void check_sequence(const KvLayout& layout, const AttentionSequence& sequence);

// f(item, thread) for items [0, count), each to the thread that comes for it first.
template <typename F>
void for_each_item(ThreadPool& pool, std::int64_t count, F f) {
  if (count == 1) return f(0, 0);
  std::atomic<std::int64_t> next = 0;
  pool.run([&](int thread, int) {
    for (std::int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      f(i, thread);
    }
  });
}

}  // namespace chorus
