// What one call of attention() and its parts look like to the code of an instruction set. Private to attention*.cc.
//
// A lane is one (query row, query head). A tile is up to 64 lanes of one sequence that share a KV head, so that they
// share the loaded keys and values; lane i of a sequence is row i / group, head i % group of the KV head's group. How
// lanes are grouped in tiles changes no value.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/numerics.h"
#include "tensor/kv_dtype.h"

namespace chorus {

struct AttentionCall {
  const std::byte* cache = nullptr;  // block b at cache + b * block_bytes; in it of each KV head: K, then V
  std::size_t block_bytes = 0;
  std::size_t head_bytes = 0;  // K (or V) of one head of one block
  KvDType dtype = KvDType::float32;
  int head_dim = 0;
  int head_dim_padded = 0;  // to a multiple of 16
  int block_size = 0;
  int group = 0;  // query heads of a KV head
  int window = 0;
  float scale = 0;
  float softcap = 0;             // 0: none
  const float* sinks = nullptr;  // [query heads]
  const float* q = nullptr;
  std::int64_t ldq = 0;
  float* out = nullptr;
  std::int64_t ldo = 0;
};

struct AttentionTile {
  const std::int32_t* block_table = nullptr;
  std::int64_t row = 0;    // of the sequence's first query row
  std::int32_t start = 0;  // its position
  std::int32_t kv_head = 0;
  std::int32_t lane = 0;  // first lane
  std::int32_t lanes = 0;
};

// Keys [first, last) that the lane sees.
struct AttentionSpan {
  std::int32_t first = 0, last = 0;
};

// Softmax of a lane over some of its keys, in float32: [0] maximum, [1] sum (0: no key), then from [16] head_dim_padded
// weighted values. Of a tile: lane after lane.
inline constexpr int attention_state_values = 16;

struct AttentionKernels {
  int lanes_max = 0;  // lanes of a full tile
  // Scaled q of the tile's lanes in the kernel's order: lanes * head_dim floats.
  void (*pack)(const AttentionCall& call, const AttentionTile& tile, float* packed) = nullptr;
  // State of every lane over partition `partition`. weights: attention_weights_floats.
  void (*partition)(const AttentionCall& call, const AttentionTile& tile, const float* packed, int partition,
                    float* weights, float* state) = nullptr;
  // state = state merged with `later`, the state of a later partition.
  void (*merge)(const AttentionCall& call, const AttentionTile& tile, const float* later, float* state) = nullptr;
  // out = weighted values / sum.
  void (*finish)(const AttentionCall& call, const AttentionTile& tile, const float* state) = nullptr;
};
// The most lanes of a tile, whatever the instruction set, and a weight of each for every key of a partition.
inline constexpr int attention_lanes_max = 8;
inline constexpr int attention_weights_floats = attention_lanes_max * attention_partition_keys;

const AttentionKernels& attention_kernels_scalar();
const AttentionKernels& attention_kernels_avx2();
const AttentionKernels& attention_kernels_avx512();

}  // namespace chorus
