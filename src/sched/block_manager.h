// Reference counts of the KV blocks, and which one to hand out next. A block without a user is free; when the prefix
// cache has an entry for it, it can still be found and taken back into use until it is handed out for something else.
// Free blocks are handed out: those without an entry first, then the one unused for longest. Not thread-safe; allocates
// only when built.
#pragma once

#include <cstdint>
#include <vector>

#include "sched/prefix_cache.h"

namespace chorus {

class BlockManager {
 public:
  // `cache` (not owned) may be null: then no block is remembered.
  BlockManager(std::int32_t blocks, PrefixCache* cache);

  std::int32_t total() const { return static_cast<std::int32_t>(nodes_.size()) - 1; }
  std::int32_t free() const { return free_; }
  std::int32_t users(BlockId block) const { return node(block).users; }

  // A block with one user, its cache entry forgotten. CHECK: free() > 0.
  BlockId allocate();
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
  void link_after(BlockId place, BlockId block);
  void unlink(BlockId block);

  PrefixCache* cache_;
  std::vector<Node> nodes_;  // by block; the last one is the ring's anchor: anchor.next is handed out next
  BlockId anchor_;
  std::int32_t free_ = 0;
};

}  // namespace chorus
