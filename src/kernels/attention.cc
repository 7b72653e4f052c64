#include "kernels/attention.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "kernels/attention_tile.h"
#include "kernels/scratch.h"

namespace chorus {
namespace {

const AttentionKernels& kernels_of(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return attention_kernels_scalar();
    case Isa::avx2_f32:
      return attention_kernels_avx2();
    case Isa::avx512_bf16:
    case Isa::amx_bf16:
      return attention_kernels_avx512();
  }
  return attention_kernels_scalar();
}

void check_layout(const KvCacheLayer& cache) {
  const KvLayout& layout = cache.layout;
  CHECK(layout.kv_heads > 0 && layout.head_dim > 0, "kv_heads {}, head_dim {}", layout.kv_heads, layout.head_dim);
  CHECK(layout.block_size > 0 && layout.block_size % 16 == 0, "KV block size {} is no multiple of 16",
        layout.block_size);
  CHECK(layout.dtype == DType::float32 || layout.dtype == DType::bfloat16, "KV cache of {}", name_of(layout.dtype));
}

void check_sequence(const KvLayout& layout, const AttentionSequence& sequence) {
  const auto positions = static_cast<std::int64_t>(sequence.block_table.size()) * layout.block_size;
  CHECK(sequence.start >= 0 && std::int64_t{sequence.start} + sequence.count <= positions,
        "positions [{}, +{}) in {} blocks of {}", sequence.start, sequence.count, sequence.block_table.size(),
        layout.block_size);
}

// Where K of a head of a block begins; V follows it.
std::byte* head_of(const KvCacheLayer& cache, std::int32_t block, int head) {
  const std::size_t block_bytes = cache.layout.block_bytes();
  const std::size_t head_bytes = block_bytes / static_cast<std::size_t>(cache.layout.kv_heads);
  return cache.data + static_cast<std::size_t>(block) * block_bytes + static_cast<std::size_t>(head) * head_bytes;
}

template <typename T>
T stored(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else {
    return to_bfloat16(value);
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
  T* keys = reinterpret_cast<T*>(head_of(cache, block, head));
  T* values = keys + static_cast<std::ptrdiff_t>(head_dim) * block_size;
  for (std::int32_t position = first; position < last; ++position) {
    const std::int64_t row = sequence.row + position - sequence.start;
    const float* k = source.k + row * source.ldk + static_cast<std::int64_t>(head) * head_dim;
    const float* v = source.v + row * source.ldv + static_cast<std::int64_t>(head) * head_dim;
    const int slot = position % block_size;
    for (int d = 0; d < head_dim; ++d) keys[static_cast<std::ptrdiff_t>(d) * block_size + slot] = stored<T>(k[d]);
    for (int d = 0; d < head_dim; ++d) values[static_cast<std::ptrdiff_t>(slot) * head_dim + d] = stored<T>(v[d]);
  }
}

// Every (sequence, block, head) in turn, each by one thread: two threads never write one block's head.
template <typename T>
void write_share(const KvCacheLayer& cache, std::span<const AttentionSequence> sequences, const KvSource& source,
                 int thread, int count) {
  const int block_size = cache.layout.block_size;
  std::int64_t item = 0;
  for (const AttentionSequence& sequence : sequences) {
    const std::int32_t end = sequence.start + sequence.count;
    for (std::int32_t first = sequence.start, last; first < end; first = last) {
      last = std::min(end, (first / block_size + 1) * block_size);
      for (int head = 0; head < cache.layout.kv_heads; ++head) {
        if (item++ % count == thread) write_block<T>(cache, sequence, first, last, head, source);
      }
    }
  }
}

// First and last + 1 partition that any lane of the tile sees.
AttentionSpan partitions_of(const AttentionCall& call, const AttentionTile& tile) {
  const std::int32_t first_position = tile.start + tile.lane / call.group;
  const std::int32_t last_position = tile.start + (tile.lane + tile.lanes - 1) / call.group;
  const std::int32_t first_key = call.window > 0 ? std::max(0, first_position + 1 - call.window) : 0;
  return {first_key / attention_partition_keys, last_position / attention_partition_keys + 1};
}

AttentionCall make_call(const KvCacheLayer& cache, const AttentionParams& params) {
  const KvLayout& layout = cache.layout;
  AttentionCall call;
  call.cache = cache.data;
  call.block_bytes = layout.block_bytes();
  call.head_bytes = call.block_bytes / static_cast<std::size_t>(2 * layout.kv_heads);
  call.bfloat16 = layout.dtype == DType::bfloat16;
  call.head_dim = layout.head_dim;
  call.head_dim_padded = (layout.head_dim + 15) / 16 * 16;
  call.block_size = layout.block_size;
  call.group = params.heads / layout.kv_heads;
  call.window = params.window;
  call.scale = params.scale;
  return call;
}

std::int64_t tiles_of(const AttentionCall& call, const AttentionSequence& sequence, int lanes_max) {
  return (std::int64_t{sequence.count} * call.group + lanes_max - 1) / lanes_max;
}

// Later rows see more keys, so a sequence's tiles come last rows first: the long ones are not left for the end.
std::int64_t list_tiles(const AttentionCall& call, std::span<const AttentionSequence> sequences, int kv_heads,
                        int lanes_max, AttentionTile* tiles) {
  std::int64_t count = 0;
  for (const AttentionSequence& sequence : sequences) {
    const std::int32_t lanes = sequence.count * call.group;
    for (std::int64_t i = tiles_of(call, sequence, lanes_max) - 1; i >= 0; --i) {
      const auto lane = static_cast<std::int32_t>(i * lanes_max);
      for (std::int32_t head = 0; head < kv_heads; ++head) {
        tiles[count++] = {sequence.block_table.data(),      sequence.row, sequence.start, head, lane,
                          std::min(lanes_max, lanes - lane)};
      }
    }
  }
  return count;
}

// What one thread works in.
struct Workspace {
  float* packed;
  float* weights;
  float* state;
  float* later;
};

Workspace take_workspace(Scratch& scratch, const AttentionCall& call, int lanes_max) {
  const std::int64_t state = std::int64_t{lanes_max} * (attention_state_values + call.head_dim_padded);
  return {scratch.take_array<float>(std::int64_t{lanes_max} * call.head_dim),
          scratch.take_array<float>(attention_weights_floats), scratch.take_array<float>(state),
          scratch.take_array<float>(state)};
}

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

void attend_tile(const AttentionKernels& kernels, const AttentionCall& call, const AttentionTile& tile,
                 const Workspace& work) {
  kernels.pack(call, tile, work.packed);
  const AttentionSpan partitions = partitions_of(call, tile);
  kernels.partition(call, tile, work.packed, partitions.first, work.weights, work.state);
  for (std::int32_t partition = partitions.first + 1; partition < partitions.last; ++partition) {
    kernels.partition(call, tile, work.packed, partition, work.weights, work.later);
    kernels.merge(call, tile, work.later, work.state);
  }
  kernels.finish(call, tile, work.state);
}

// States that a call may keep when it spreads partitions over the threads: 16 MiB.
constexpr std::int64_t spread_floats_max = std::int64_t{1} << 22;

struct PartitionItem {
  const AttentionTile* tile;
  std::int32_t partition;
  float* state;
};

// A few long sequences (one user, a long context) are too few tiles for all threads. Then each partition is an item,
// and the states are merged afterwards: the same operations in the same order as in attend_tile. False: not such a
// call.
bool attend_spread(ThreadPool& pool, Scratch& scratch, const AttentionKernels& kernels, const AttentionCall& call,
                   std::span<const AttentionTile> tiles, const Workspace* work) {
  if (pool.size() == 1 || std::ssize(tiles) >= 2 * pool.size()) return false;
  const std::int64_t lane_floats = attention_state_values + call.head_dim_padded;
  std::int64_t items = 0, floats = 0;
  for (const AttentionTile& tile : tiles) {
    const AttentionSpan partitions = partitions_of(call, tile);
    items += partitions.last - partitions.first;
    floats += (partitions.last - partitions.first) * tile.lanes * lane_floats;
  }
  if (items == std::ssize(tiles) || floats > spread_floats_max) return false;

  auto* item = scratch.take_array<PartitionItem>(items);
  auto* first_item = scratch.take_array<std::int64_t>(std::ssize(tiles) + 1);
  float* states = scratch.take_array<float>(floats);
  std::int64_t count = 0;
  for (std::size_t t = 0; t < tiles.size(); ++t) {
    first_item[t] = count;
    const AttentionSpan partitions = partitions_of(call, tiles[t]);
    for (std::int32_t partition = partitions.first; partition < partitions.last; ++partition) {
      item[count++] = {&tiles[t], partition, states};
      states += tiles[t].lanes * lane_floats;
    }
  }
  first_item[tiles.size()] = count;

  for_each_item(pool, count, [&](std::int64_t i, int thread) {
    const Workspace& mine = work[thread];
    kernels.pack(call, *item[i].tile, mine.packed);
    kernels.partition(call, *item[i].tile, mine.packed, item[i].partition, mine.weights, item[i].state);
  });
  for_each_item(pool, std::ssize(tiles), [&](std::int64_t t, int) {
    float* state = item[first_item[t]].state;
    for (std::int64_t i = first_item[t] + 1; i < first_item[t + 1]; ++i) {
      kernels.merge(call, *item[i].tile, item[i].state, state);
    }
    kernels.finish(call, tiles[static_cast<std::size_t>(t)], state);
  });
  return true;
}

}  // namespace

void kv_write(ThreadPool& pool, Isa, const KvCacheLayer& cache, std::span<const AttentionSequence> sequences,
              const float* k, std::int64_t ldk, const float* v, std::int64_t ldv) {
  check_layout(cache);
  for (const AttentionSequence& sequence : sequences) check_sequence(cache.layout, sequence);
  const KvSource source = {k, ldk, v, ldv};
  pool.run([&](int thread, int count) {
    if (cache.layout.dtype == DType::float32) {
      write_share<float>(cache, sequences, source, thread, count);
    } else {
      write_share<Bfloat16>(cache, sequences, source, thread, count);
    }
  });
}

void attention(ThreadPool& pool, Scratch& scratch, Isa isa, const KvCacheLayer& cache,
               std::span<const AttentionSequence> sequences, const AttentionParams& params, const float* q,
               std::int64_t ldq, float* out, std::int64_t ldo) {
  check_layout(cache);
  CHECK(params.heads > 0 && params.heads % cache.layout.kv_heads == 0, "{} query heads, {} KV heads", params.heads,
        cache.layout.kv_heads);
  const AttentionKernels& kernels = kernels_of(isa);
  AttentionCall call = make_call(cache, params);
  call.q = q;
  call.ldq = ldq;
  call.out = out;
  call.ldo = ldo;

  const Scratch::Scope scope(scratch);
  std::int64_t tile_count = 0;
  for (const AttentionSequence& sequence : sequences) {
    check_sequence(cache.layout, sequence);
    tile_count += tiles_of(call, sequence, kernels.lanes_max) * cache.layout.kv_heads;
  }
  auto* tiles = scratch.take_array<AttentionTile>(tile_count);
  list_tiles(call, sequences, cache.layout.kv_heads, kernels.lanes_max, tiles);
  auto* work = scratch.take_array<Workspace>(pool.size());
  for (int thread = 0; thread < pool.size(); ++thread) work[thread] = take_workspace(scratch, call, kernels.lanes_max);

  if (attend_spread(pool, scratch, kernels, call, {tiles, static_cast<std::size_t>(tile_count)}, work)) return;
  for_each_item(pool, tile_count,
                [&](std::int64_t i, int thread) { attend_tile(kernels, call, tiles[i], work[thread]); });
}

}  // namespace chorus
