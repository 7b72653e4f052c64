#include "sched/block_manager.h"

#include "base/check.h"

namespace chorus {

BlockManager::BlockManager(std::int32_t blocks, PrefixCache* cache)
    : cache_(cache), nodes_(static_cast<std::size_t>(blocks) + 1), anchor_(blocks) {
  node(anchor_) = {0, anchor_, anchor_};
  for (BlockId block = 0; block < blocks; ++block) link_after(node(anchor_).previous, block);
}

void BlockManager::link_after(BlockId place, BlockId block) {
  const BlockId next = node(place).next;
  node(block).previous = place;
  node(block).next = next;
  node(place).next = block;
  node(next).previous = block;
  ++free_;
}

void BlockManager::unlink(BlockId block) {
  node(node(block).previous).next = node(block).next;
  node(node(block).next).previous = node(block).previous;
  --free_;
}

BlockId BlockManager::allocate() {
  CHECK(free_ > 0, "all {} blocks are in use", total());
  const BlockId block = node(anchor_).next;
  unlink(block);
  if (cache_ != nullptr && cache_->contains(block)) cache_->erase(block);
  node(block).users = 1;
  return block;
}

void BlockManager::share(BlockId block) {
  CHECK(block >= 0 && block < anchor_, "block {} of {}", block, total());
  if (node(block).users == 0) {
    CHECK(cache_ != nullptr && cache_->contains(block), "free block {} holds nothing to share", block);
    unlink(block);
  }
  ++node(block).users;
}

void BlockManager::release(BlockId block) {
  CHECK(block >= 0 && block < anchor_ && node(block).users > 0, "block {} of {} has no user", block, total());
  if (--node(block).users > 0) return;
  const bool cached = cache_ != nullptr && cache_->contains(block);
  link_after(cached ? node(anchor_).previous : anchor_, block);
}

}  // namespace chorus
