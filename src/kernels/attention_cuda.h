// Paged attention on a GPU over a KV memory in bfloat16; queries come and results go in bfloat16.
//
// Numerics (design.md section 1, rule 3). Keys are walked in the partitions of attention.h at absolute positions: each
// gives (max, sum, weighted values) in float32, and these are merged in ascending order by attention.h's step. Inside a
// partition keys go in steps of 32 at absolute positions by the online softmax of FlashAttention (Dao et al., 2022,
// algorithm 1); scores and weighted values are sums of mma_bf16 in ascending dimension and key, the weights rounded to
// bfloat16. So a row's result depends on its q, its keys and its position alone: a prefill walks all partitions in one
// block, a decode gives each a block of its own, and the bits are equal (attention_cuda_test.cc).
//
// KV memory of a layer: of block b and KV head h K [block_size, head_dim], then V [block_size, head_dim], at element
// (b * kv_heads + h) * 2 * block_size * head_dim. Keys beyond a row's position add weights of exactly 0: their values
// must be numbers, as all that was written are; what was never written is not read.
#pragma once

#include <cstdint>

#include "base/numerics.h"
#include "kernels/cuda_queue.h"

namespace chorus {

// The rows of one sequence: query rows [row, row + count) at positions [start, start + count).
struct CudaSequence {
  std::int32_t row = 0, start = 0, count = 0;
  std::int32_t table = 0;  // its row of `tables`
};

// Pointers are the device's, aligned to 16 bytes.
struct CudaAttention {
  const std::uint16_t* q = nullptr;  // [rows, heads * head_dim], stride ldq, a multiple of 8
  std::int64_t ldq = 0;
  std::uint16_t* out = nullptr;  // [rows, heads * head_dim], stride ldo, even
  std::int64_t ldo = 0;
  const std::uint16_t* cache = nullptr;
  const std::int32_t* tables = nullptr;  // [sequences, table_stride] block numbers
  std::int64_t table_stride = 0;
  const CudaSequence* sequences = nullptr;
  std::int32_t sequence_count = 0;
  std::int32_t rows_max = 0;       // of one sequence
  std::int32_t positions_max = 0;  // start + count of any
  std::int32_t heads = 0, kv_heads = 0,
               block_size = 16;  // heads / kv_heads at most 16; block_size a power of two, 16 or more
  std::int32_t head_dim = 128;   // a multiple of 8, at most 128; fastest: 64 and 128
  std::int32_t window = 0;       // 0: all keys
  float scale = 1.0F;
  std::int32_t block_size_log2 = 0;  // the launcher's
  float* states = nullptr;           // attention_cuda_state_floats() floats if rows_max is 1
};

// The dimensions that a head is computed with.
inline constexpr std::int32_t attention_cuda_padded(std::int32_t head_dim) {
  return head_dim <= 64 ? 64 : 128;
}

// Scratch that a call with one row a sequence needs: a state of 16 lanes for each sequence, KV head and partition.
inline std::int64_t attention_cuda_state_floats(const CudaAttention& call) {
  const std::int64_t partitions = (call.positions_max + attention_partition_keys - 1) / attention_partition_keys;
  return partitions * call.sequence_count * call.kv_heads * 16 * (4 + attention_cuda_padded(call.head_dim));
}

// Queues the attention of all sequences: those with one row each (a decode) in one call, prefills in another.
void attention_cuda(CudaQueue& queue, const CudaAttention& call);

}  // namespace chorus
