// Attention whose work is cut by partition of the keys, in three steps that a caller puts together: states of the
// partitions that are here, states of the others from wherever they are, and merging all of them. Used where several
// memories share the keys of a sequence (KvShare), and over threads where there are few rows and many keys.
//
// Numerics: the operations on a row and their order are those of attention() (attention.h), so the bits are too.
//
// Memory: states are (16 + head_dim, rounded up to 16) floats for each query row, query head and partition that the row
// sees: a 2,048-row prefill at the end of 32k keys has a gigabyte of them. So the work goes in chunks, of at most
// attention_chunk_floats_max floats of states over all shares (or one tile's state, if that is more). Chunks and the
// place of every state depend on the sequences and the shape alone, so all shares go through the same chunks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/attention.h"
#include "kernels/attention_plan.h"
#include "tensor/scratch.h"

namespace chorus {

inline constexpr std::int64_t attention_chunk_floats_max = std::int64_t{1} << 22;  // 16 MiB

//   SplitAttention split(...);
//   while (split.next()) {
//     split.compute();
//     // here all() of every share gets the own() of all shares, one after another
//     split.finish();
//   }
class SplitAttention {
 public:
  // As attention(). The cache's share says which partitions are here. `scratch` is used until the end of this object;
  // what is taken from it meanwhile must be given back before the next call.
  SplitAttention(ThreadPool& pool, Scratch& scratch, Isa isa, const KvCacheLayer& cache,
                 std::span<const AttentionSequence> sequences, const AttentionParams& params, const float* q,
                 std::int64_t ldq, float* out, std::int64_t ldo,
                 std::int64_t chunk_floats_max = attention_chunk_floats_max);

  // Begins the next chunk; false: there is none, `out` is complete.
  bool next();
  // Computes own(): the states of the chunk's partitions that are here.
  void compute();
  // Merges all() into the rows' results, and writes to `out` the rows whose last partition was among them.
  void finish();

  // The chunk's states of all shares, share after share, and of this one: a part of all().
  std::span<float> all() const { return all_; }
  std::span<float> own() const { return own_; }
  // How long each share's part of all() is.
  std::span<const std::size_t> bytes_of_shares() const { return bytes_of_shares_; }

 private:
  // One partition of one tile.
  struct Item {
    std::size_t tile = 0;
    std::int32_t partition = 0;
    float* state = nullptr;
  };
  // Where the items of one tile begin and end in a chunk.
  struct TileItems {
    const Item* begin = nullptr;
    const Item* end = nullptr;
  };
  struct Cursor {
    std::size_t tile = 0;
    std::int32_t partition = 0;
  };

  void advance(Cursor* cursor) const;
  std::int64_t floats_of(std::size_t tile) const { return plan_.tiles[tile].lanes * plan_.lane_floats(); }
  void place_states(Cursor end, std::int64_t item_count, std::int64_t floats);
  void list_tiles_of_chunk();
  float* merge(const TileItems& items) const;

  ThreadPool& pool_;
  Scratch& scratch_;
  Scratch::Scope scope_;  // until the end
  AttentionPlan plan_;
  KvShare share_;
  std::int64_t chunk_floats_max_;
  float* carried_;  // state of a tile whose partitions began in an earlier chunk
  Cursor at_;       // first item of the next chunk
  // The chunk: its memory, and what lies in it.
  std::optional<Scratch::Scope> chunk_scope_;
  std::span<Item> items_;
  std::span<TileItems> tiles_;
  std::span<float> all_, own_;
  std::span<std::size_t> bytes_of_shares_;
};

}  // namespace chorus
