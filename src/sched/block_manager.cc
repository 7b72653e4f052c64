#include "sched/block_manager.h"

#include "base/check.h"

namespace chorus {

BlockManager::BlockManager(std::int32_t blocks, PrefixCache* cache, KvPools pools)
    : cache_(cache),
      pools_(pools),
      blocks_(blocks),
      nodes_(static_cast<std::size_t>(blocks) + static_cast<std::size_t>(pools.pools)),
      free_in_(static_cast<std::size_t>(pools.pools)) {
  for (BlockId anchor = blocks; anchor < blocks + pools.pools; ++anchor) node(anchor) = {0, anchor, anchor};
  for (BlockId block = 0; block < blocks; ++block) link_after(node(anchor_of(block)).previous, block);
}

void BlockManager::link_after(BlockId place, BlockId block) {
  const BlockId next = node(place).next;
  node(block).previous = place;
  node(block).next = next;
  node(place).next = block;
  node(next).previous = block;
  ++free_;
  ++free_in_[static_cast<std::size_t>(pools_.pool_of_block(block))];
}

void BlockManager::unlink(BlockId block) {
  node(node(block).previous).next = node(block).next;
  node(node(block).next).previous = node(block).previous;
  --free_;
  --free_in_[static_cast<std::size_t>(pools_.pool_of_block(block))];
}

BlockId BlockManager::allocate(std::int32_t pool) {
  CHECK(free_in(pool) > 0, "all {} blocks of pool {} are in use", pools_.size(blocks_, pool), pool);
  const BlockId block = node(blocks_ + pool).next;
  unlink(block);
  if (cache_ != nullptr && cache_->contains(block)) cache_->erase(block);
  node(block).users = 1;
  return block;
}

void BlockManager::share(BlockId block) {
  CHECK(block >= 0 && block < blocks_, "block {} of {}", block, total());
  if (node(block).users == 0) {
    CHECK(cache_ != nullptr && cache_->contains(block), "free block {} holds nothing to share", block);
    unlink(block);
  }
  ++node(block).users;
}

void BlockManager::release(BlockId block) {
  CHECK(block >= 0 && block < blocks_ && node(block).users > 0, "block {} of {} has no user", block, total());
  if (--node(block).users > 0) return;
  const bool cached = cache_ != nullptr && cache_->contains(block);
  const BlockId anchor = anchor_of(block);
  link_after(cached ? node(anchor).previous : anchor, block);
}

}  // namespace chorus
