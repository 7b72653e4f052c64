#include "kernels/attention.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/check.h"
#include "kernels/attention_plan.h"
#include "kernels/attention_split.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

// Where K of a head of a block begins; V follows it.
std::byte* head_of(const KvCacheLayer& cache, std::int32_t block, int head) {
  return cache.data + static_cast<std::size_t>(block) * cache.layout.block_bytes() +
         2 * static_cast<std::size_t>(head) * cache.layout.head_bytes();
}

// Stores a row of a head, its elements `stride` apart; a row of codes has a scale too.
void store_row(const float* row, int head_dim, std::ptrdiff_t stride, float* to, float* /*scale*/) {
  for (int d = 0; d < head_dim; ++d) to[d * stride] = row[d];
}
void store_row(const float* row, int head_dim, std::ptrdiff_t stride, Bfloat16* to, float* /*scale*/) {
  for (int d = 0; d < head_dim; ++d) to[d * stride] = to_bfloat16(row[d]);
}
void store_row(const float* row, int head_dim, std::ptrdiff_t stride, std::int8_t* to, float* scale) {
  constexpr float smallest_row = 1e-30F;  // below it the inverse of the scale would not be finite
  std::uint32_t largest_bits = 0;         // of a NaN they are the largest
  for (int d = 0; d < head_dim; ++d) {
    largest_bits = std::max(largest_bits, std::bit_cast<std::uint32_t>(row[d]) & 0x7fffffffU);
  }
  const auto largest = std::bit_cast<float>(largest_bits);
  const bool is_finite = largest_bits < 0x7f800000U, has_codes = is_finite && largest >= smallest_row;
  *scale = has_codes ? largest / 127 : is_finite ? 0 : std::numeric_limits<float>::quiet_NaN();
  const float inverse = has_codes ? 127 / largest : 0;
  // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, which then stands in the low bits of the sum.
  constexpr float rounder = 12582912.0F;
  for (int d = 0; d < head_dim; ++d) {
    const std::int32_t bits = std::bit_cast<std::int32_t>((has_codes ? row[d] : 0) * inverse + rounder);
    to[d * stride] = static_cast<std::int8_t>(bits - std::bit_cast<std::int32_t>(rounder));
  }
}

struct KvSource {
  const float* k;
  std::int64_t ldk;
  const float* v;
  std::int64_t ldv;
};

// Rows of `sequence` at positions [first, last), all in one block, of one head.
template <typename T>
void write_block(const KvCacheLayer& cache, const AttentionSequence& sequence, std::int32_t first, std::int32_t last,
                 int head, const KvSource& source) {
  const int block_size = cache.layout.block_size, head_dim = cache.layout.head_dim;
  const std::int32_t block = sequence.block_table[static_cast<std::size_t>(first / block_size)];
  std::byte* const head_data = head_of(cache, block, head);
  T* keys = reinterpret_cast<T*>(head_data);
  T* values = reinterpret_cast<T*>(head_data + cache.layout.head_bytes());
  const std::ptrdiff_t elements = static_cast<std::ptrdiff_t>(head_dim) * block_size;
  auto *key_scales = reinterpret_cast<float*>(keys + elements),
       *value_scales = reinterpret_cast<float*>(values + elements);
  for (std::int32_t position = first; position < last; ++position) {
    const std::int64_t row = sequence.row + position - sequence.start;
    const float* k = source.k + row * source.ldk + static_cast<std::int64_t>(head) * head_dim;
    const float* v = source.v + row * source.ldv + static_cast<std::int64_t>(head) * head_dim;
    const int slot = position % block_size;
    store_row(k, head_dim, block_size, keys + slot, key_scales + slot);
    store_row(v, head_dim, 1, values + static_cast<std::ptrdiff_t>(slot) * head_dim, value_scales + slot);
  }
}

// Every (sequence, block that is here, head) in turn, each by one thread: two threads never write one block's head.
template <typename T>
void write_share(const KvCacheLayer& cache, std::span<const AttentionSequence> sequences, const KvSource& source,
                 int thread, int count) {
  const int block_size = cache.layout.block_size;
  std::int64_t item = 0;
  for (const AttentionSequence& sequence : sequences) {
    const std::int32_t end = sequence.start + sequence.count;
    for (std::int32_t first = sequence.start, last; first < end; first = last) {
      last = std::min(end, (first / block_size + 1) * block_size);
      if (!cache.share.holds(first / attention_partition_keys)) continue;
      for (int head = 0; head < cache.layout.kv_heads; ++head) {
        if (item++ % count == thread) write_block<T>(cache, sequence, first, last, head, source);
      }
    }
  }
}

void attend_tile(const AttentionPlan& plan, const AttentionTile& tile, const AttentionWorkspace& work) {
  const AttentionKernels& kernels = *plan.kernels;
  kernels.pack(plan.call, tile, work.packed);
  const AttentionSpan partitions = partitions_of(plan.call, tile);
  kernels.partition(plan.call, tile, work.packed, partitions.first, work.weights, work.state);
  for (std::int32_t partition = partitions.first + 1; partition < partitions.last; ++partition) {
    kernels.partition(plan.call, tile, work.packed, partition, work.weights, work.later);
    kernels.merge(plan.call, tile, work.later, work.state);
  }
  kernels.finish(plan.call, tile, work.state);
}

// A few long sequences (one user, a long context) are too few tiles for all threads. Then partitions are better spread
// over the threads one by one.
bool has_few_long_tiles(const AttentionPlan& plan) {
  const auto threads = std::ssize(plan.work);
  if (threads == 1 || std::ssize(plan.tiles) >= 2 * threads) return false;
  return std::ranges::any_of(plan.tiles, [&](const AttentionTile& tile) {
    const AttentionSpan partitions = partitions_of(plan.call, tile);
    return partitions.last - partitions.first > 1;
  });
}

}  // namespace

void kv_write(ThreadPool& pool, Isa, const KvCacheLayer& cache, std::span<const AttentionSequence> sequences,
              const float* k, std::int64_t ldk, const float* v, std::int64_t ldv) {
  check_layout(cache);
  for (const AttentionSequence& sequence : sequences) check_sequence(cache.layout, sequence);
  const KvSource source = {k, ldk, v, ldv};
  pool.run([&](int thread, int count) {
    switch (cache.layout.dtype) {
      case KvDType::float32:
        return write_share<float>(cache, sequences, source, thread, count);
      case KvDType::bfloat16:
        return write_share<Bfloat16>(cache, sequences, source, thread, count);
      case KvDType::int8:
        return write_share<std::int8_t>(cache, sequences, source, thread, count);
    }
  });
}

void attention(ThreadPool& pool, Scratch& scratch, Isa isa, const KvCacheLayer& cache,
               std::span<const AttentionSequence> sequences, const AttentionParams& params, const float* q,
               std::int64_t ldq, float* out, std::int64_t ldo) {
  CHECK(cache.share.count == 1, "{} shares: their states must meet (attention_split.h)", cache.share.count);
  const Scratch::Scope scope(scratch);
  const AttentionPlan plan = plan_attention(pool, scratch, isa, cache, sequences, params, q, ldq, out, ldo);
  if (has_few_long_tiles(plan)) {
    SplitAttention split(pool, scratch, isa, cache, sequences, params, q, ldq, out, ldo);
    while (split.next()) {
      split.compute();
      split.finish();
    }
    return;
  }
  for_each_item(pool, std::ssize(plan.tiles), [&](std::int64_t i, int thread) {
    attend_tile(plan, plan.tiles[static_cast<std::size_t>(i)], plan.work[static_cast<std::size_t>(thread)]);
  });
}

}  // namespace chorus
