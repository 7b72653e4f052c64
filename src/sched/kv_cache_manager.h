// The blocks of sequences: finds what is already computed, takes what is missing, gives everything back. Block
// reference counts (block_manager.h) and the prefix cache in terms of whole sequences.
#pragma once

#include <cstdint>
#include <optional>

#include "sched/block_manager.h"
#include "sched/kv_shape.h"
#include "sched/prefix_cache.h"
#include "sched/sequence.h"

namespace chorus {

class KvCacheManager {
 public:
  struct Counters {
    std::uint64_t queries = 0, hits = 0;  // tokens looked up, and found
  };

  KvCacheManager(std::int32_t blocks, const KvShape& shape, bool enable_prefix_caching,
                 const std::array<std::uint64_t, 2>& key, PrefixHash hash = prefix_hash);

  // Where a sequence with this cache salt begins.
  PrefixLink root(std::string_view salt) const { return cache_ ? cache_->root(salt) : PrefixLink(); }
  // Gives the sequence, which has no block, blocks for its whole history: those that hold its beginning already (from
  // the prefix cache when `look_up`, or from `sibling`, a choice of the same request that has computed the prompt), new
  // ones for the rest. Sets `computed`, always less than the history: the last token is computed for its logits. False,
  // and no change, when there are not enough free blocks in a pool. A shared block is at the same index in all its
  // sequences, and so of the right pool.
  bool admit(Sequence* sequence, bool look_up, const Sequence* sibling);
  // Blocks for `length` positions, of windowed tables for as many of them as a step can compute; their blocks that no
  // row sees any more are given back first. False when there are not enough: then none was taken.
  bool grow(Sequence* sequence, std::int32_t length);
  // Lets the cache know the blocks that are full and computed.
  void remember(Sequence* sequence);
  // Gives all blocks back; nothing of the sequence is computed any more.
  void release(Sequence* sequence);

  std::int32_t blocks_for(std::int64_t tokens) const {
    return static_cast<std::int32_t>((tokens + block_size_ - 1) / block_size_);
  }
  PrefixCache* cache() { return cache_ ? &*cache_ : nullptr; }  // nullptr: it is off
  const BlockManager& blocks() const { return blocks_; }
  const Counters& counters() const { return counters_; }

 private:
  // A block that the cache has, and the place after it.
  struct Found {
    BlockId block = -1;
    PrefixLink link;
  };

  std::span<const TokenId> block_tokens(const Sequence& sequence, std::int32_t index) const;
  void take_cached(Sequence* sequence, std::int32_t blocks_max);
  void take_from_sibling(Sequence* sequence, const Sequence& sibling, std::int32_t blocks_max);
  std::size_t usable() const;
  template <typename BlockAt>
  void share_windows(Sequence* sequence, std::int32_t end, const BlockAt& block_at);
  void give_back_unseen(Sequence* sequence);
  void release_windows(Sequence* sequence);

  KvShape shape_;
  std::int32_t block_size_;
  std::vector<Found> found_;  // by take_cached(); kept for its capacity
  std::optional<PrefixCache> cache_;
  BlockManager blocks_;
  Counters counters_;
};

}  // namespace chorus
