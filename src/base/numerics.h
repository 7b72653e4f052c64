// What the numerics fix and more rooms than the kernels must know (docs/numerics.md).
#pragma once

namespace chorus {

// Attention walks the keys of a sequence in partitions of so many, at absolute positions: each gives a partial softmax,
// and these are merged in a fixed order. Context-parallel workers hold whole partitions in turn.
inline constexpr int attention_partition_keys = 256;

}  // namespace chorus
