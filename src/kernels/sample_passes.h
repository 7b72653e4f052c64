// The two passes of the sampler over a whole vocabulary, compiled once per instruction set from one plain source that
// nothing fuses or reassociates: wider vectors, the same bits. Private to sample*.cc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chorus {

enum class Isa : std::uint8_t;  // kernels/isa.h, whose inline functions vector code must not see (vector16.h)

inline constexpr std::size_t sample_block = 64;  // logits

struct SampleScan {
  std::int32_t largest = 0;  // key_of the largest logit
  bool has_nan = false;
};

struct SamplePasses {
  // key_of the largest logit of each block of sample_block, and of all.
  SampleScan (*scan)(const float* logits, std::size_t count, std::int32_t* block_largest) = nullptr;
  // weights[i] = e^((logits[i] - largest) / temperature), or 0 where that is less than min_p; 1 exactly for the
  // largest.
  void (*weigh)(const float* logits, std::size_t count, float largest, float temperature, float min_p,
                float* weights) = nullptr;
};

const SamplePasses& sample_passes_scalar();
const SamplePasses& sample_passes_avx2();
const SamplePasses& sample_passes_avx512();
const SamplePasses& sample_passes_for(Isa isa);

}  // namespace chorus
