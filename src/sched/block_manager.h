// Reference counts of the KV blocks, and which one to hand out next. A block without a user is free; when the prefix
// cache has an entry for it, it can still be found and taken back into use until it is handed out for something else.
// Free blocks of a pool (kv_pools.h) are handed out: those without an entry first, then the one unused for longest. Not
// thread-safe; allocates only when built.
#pragma once

#include <cstdint>
#include <vector>

#include "sched/kv_pools.h"
#include "sched/prefix_cache.h"

namespace chorus {

class BlockManager {
 public:
  // `cache` (not owned) may be null: then no block is remembered.
  BlockManager(std::int32_t blocks, PrefixCache* cache, KvPools pools = {});

  std::int32_t total() const { return blocks_; }
  std::int32_t free() const { return free_; }
  std::int32_t free_in(std::int32_t pool) const { return free_in_[static_cast<std::size_t>(pool)]; }
  const KvPools& pools() const { return pools_; }
  std::int32_t users(BlockId block) const { return node(block).users; }

  // A block of the pool with one user, its cache entry forgotten. CHECK: free_in(pool) > 0.
  BlockId allocate(std::int32_t pool = 0);
  // One more user: of a block in use, or of a free one found in the cache.
  void share(BlockId block);
  // One user less. Release a sequence's blocks from the last to the first: a block is found only through those before
  // it, so those after it should be handed out earlier.
  void release(BlockId block);

 private:
  struct Node {
    std::int32_t users = 0;
    BlockId previous = -1, next = -1;  // in the list of free blocks
  };
  Node& node(BlockId block) { return nodes_[static_cast<std::size_t>(block)]; }
  const Node& node(BlockId block) const { return nodes_[static_cast<std::size_t>(block)]; }
  BlockId anchor_of(BlockId block) const { return blocks_ + pools_.pool_of_block(block); }
  void link_after(BlockId place, BlockId block);
  void unlink(BlockId block);

  PrefixCache* cache_;
  KvPools pools_;
  std::int32_t blocks_;
  std::vector<Node> nodes_;            // by block, then the anchor of each pool's ring: anchor.next is handed out next
  std::vector<std::int32_t> free_in_;  // by pool
  std::int32_t free_ = 0;              // in all
};

}  // namespace chorus
