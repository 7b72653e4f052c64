// Paged attention over KV blocks, prefill and decode by one kernel, and the write of new keys and values.
//
// Numerics (design.md section 1, rule 3). A query row at absolute position p sees keys [max(0, p + 1 - window), p].
// Keys are walked in partitions of attention_partition_keys at absolute positions; each partition gives (max, sum,
// weighted values) in float32, and partitions are merged in ascending order. What a row computes depends on its q, its
// keys and p alone: not on the other rows of the step, on chunking or on threads; keys beyond p are never read into a
// sum.
//
// Keys and values stored in 8 bits (KvDType::int8). The row x of one head of one token is rounded when it is written:
// s = |largest| / 127 and codes c = x (127 / |largest|) to the nearest (ties to even): c s stands for x within about
// s / 2. A row whose largest is below 1e-30 is zeros with a scale of 0; one with a NaN or an infinity has a scale that
// is NaN, so that it reaches the output. A score is s_k (sum over d of q[d] c_k[d]): the chain of multiply-adds of a
// float cache over the codes, which float32 holds exactly, then one product. A weighted value is a chain of
// multiply-adds of (w s_v) and c_v; the softmax's sum is of w. Every product and sum is one IEEE operation in a fixed
// order, as for floats: no de-quantised key or value is ever stored, and nothing depends on tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/numerics.h"
#include "kernels/isa.h"
#include "kernels/linear.h"
#include "kernels/thread_pool.h"
#include "tensor/kv_dtype.h"

namespace chorus {

// The KV memory of one layer: `blocks` blocks of `block_size` tokens, K and V of all of this rank's KV heads.
// K of a head is stored transposed ([head_dim][block_size]) and V as [block_size][head_dim], so that 16 keys are one
// vector. With int8 the scales [block_size] of K, float32, follow K's codes, and those of V V's.
struct KvLayout {
  int kv_heads = 0;
  int head_dim = 0;
  int block_size = 16;  // a multiple of 16
  KvDType dtype = KvDType::bfloat16;
  std::size_t head_bytes() const {  // of one head of one block, K or V
    return static_cast<std::size_t>(block_size) * kv_row_bytes(dtype, static_cast<std::size_t>(head_dim));
  }
  std::size_t block_bytes() const {  // of one block, K and V, one layer: whole cache lines
    constexpr std::size_t line = 64;
    return (2 * static_cast<std::size_t>(kv_heads) * head_bytes() + line - 1) / line * line;
  }
};
// Which keys of every sequence a KV memory holds: of `count` equal memories that share each sequence, number `index`
// holds partitions index, index + count, index + 2 count ... With more than one, block_size divides
// attention_partition_keys.
struct KvShare {
  int index = 0;
  int count = 1;
  bool holds(std::int64_t partition) const { return partition % count == index; }
};
struct KvCacheLayer {
  KvLayout layout;
  std::byte* data = nullptr;  // 64-byte aligned; block b begins at data + b * block_bytes()
  KvShare share = {};
  int table = 0;  // which of a sequence's block tables names its blocks
};

// The rows of one sequence in a step: query rows [row, row + count) stand at positions [start, start + count). Table
// entries of blocks that another share holds are not used, but there are entries for all.
struct AttentionSequence {
  std::int64_t row = 0;
  std::int32_t start = 0;
  std::int32_t count = 0;
  std::span<const std::int32_t> block_table;
};

// Stores k and v (float32, [rows, kv_heads * head_dim], row strides ldk and ldv) rounded to the layout's dtype: the
// rows whose partition the cache's share holds.
void kv_write(ThreadPool& pool, Isa isa, const KvCacheLayer& cache, std::span<const AttentionSequence> sequences,
              const float* k, std::int64_t ldk, const float* v, std::int64_t ldv);

struct AttentionParams {
  int heads = 0;       // query heads of this rank; heads % kv_heads == 0
  float scale = 1.0F;  // usually 1 / sqrt(head_dim)
  int window = 0;      // 0: all keys
  float softcap = 0;   // not 0: scores pass through softcap() of elementwise.h
  // Not null: [heads], a score of each head that takes its part of the softmax and has no value (Xiao et al.,
  // "Efficient streaming language models with attention sinks", 2023, section 3.1, as gpt-oss learns it).
  const float* sinks = nullptr;
};

// q: [rows, heads * head_dim], row stride ldq; out: [rows, heads * head_dim], row stride ldo. The keys and values of
// these rows are already written. The cache holds all keys (share.count is 1); for others see attention_split.h.
void attention(ThreadPool& pool, Scratch& scratch, Isa isa, const KvCacheLayer& cache,
               std::span<const AttentionSequence> sequences, const AttentionParams& params, const float* q,
               std::int64_t ldq, float* out, std::int64_t ldo);

}  // namespace chorus
