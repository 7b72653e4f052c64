#include "sched/kv_cache_manager.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {

KvCacheManager::KvCacheManager(std::int32_t blocks, std::int32_t block_size, KvPools pools, bool enable_prefix_caching,
                               const std::array<std::uint64_t, 2>& key, PrefixHash hash)
    : block_size_(block_size),
      cache_(enable_prefix_caching ? std::optional<PrefixCache>(std::in_place, blocks, block_size, key, hash)
                                   : std::nullopt),
      blocks_(blocks, cache_ ? &*cache_ : nullptr, pools) {}

std::span<const TokenId> KvCacheManager::block_tokens(const Sequence& sequence, std::int32_t index) const {
  return std::span(sequence.history)
      .subspan(static_cast<std::size_t>(index) * static_cast<std::size_t>(block_size_),
               static_cast<std::size_t>(block_size_));
}

void KvCacheManager::take_cached(Sequence* sequence, std::int32_t blocks_max) {
  while (sequence->cached_blocks < blocks_max) {
    const auto tokens = block_tokens(*sequence, sequence->cached_blocks);
    const std::optional<BlockId> block = cache_->find(sequence->link, tokens, &sequence->link);
    if (!block) return;
    blocks_.share(*block);
    sequence->block_table.push_back(*block);
    ++sequence->cached_blocks;
  }
}

void KvCacheManager::take_from_sibling(Sequence* sequence, const Sequence& sibling, std::int32_t blocks_max) {
  const auto prompt_blocks = sibling.request->prompt_length / block_size_;
  const auto end = static_cast<std::size_t>(std::min(prompt_blocks, blocks_max));
  CHECK(sibling.computed / block_size_ >= std::min(prompt_blocks, blocks_max), "sibling has computed {} tokens",
        sibling.computed);
  // With the cache on it has already given all of these, unless an equal block that it knew them by was handed out.
  sequence->link_lost = cache_.has_value() && sequence->block_table.size() < end;
  for (std::size_t i = sequence->block_table.size(); i < end; ++i) {
    blocks_.share(sibling.block_table[i]);
    sequence->block_table.push_back(sibling.block_table[i]);
  }
}

bool KvCacheManager::admit(Sequence* sequence, bool look_up, const Sequence* sibling) {
  CHECK(sequence->block_table.empty() && sequence->computed == 0, "sequence {} has blocks", sequence->id);
  const std::int32_t blocks_max = (sequence->length() - 1) / block_size_;
  if (cache_ && look_up) take_cached(sequence, blocks_max);
  if (sibling != nullptr) take_from_sibling(sequence, *sibling, blocks_max);
  const auto shared = static_cast<std::int32_t>(sequence->block_table.size());
  if (!grow(sequence, sequence->length())) {
    release(sequence);
    return false;
  }
  sequence->computed = shared * block_size_;
  if (cache_ && look_up) {
    counters_.queries += static_cast<std::uint64_t>(sequence->length());
    counters_.hits += static_cast<std::uint64_t>(sequence->computed);
  }
  return true;
}

bool KvCacheManager::grow(Sequence* sequence, std::int32_t length) {
  const auto have = static_cast<std::int32_t>(sequence->block_table.size());
  const std::int32_t need = blocks_for(length);
  if (need <= have) return true;
  const KvPools& pools = blocks_.pools();
  for (std::int32_t pool = 0; pool < pools.pools; ++pool) {
    if (pools.needed(need, pool) - pools.needed(have, pool) > blocks_.free_in(pool)) return false;
  }
  for (std::int32_t index = have; index < need; ++index) {
    sequence->block_table.push_back(blocks_.allocate(pools.pool_of_index(index)));
  }
  return true;
}

void KvCacheManager::remember(Sequence* sequence) {
  if (!cache_ || sequence->link_lost) return;
  for (; (sequence->cached_blocks + 1) * block_size_ <= sequence->computed; ++sequence->cached_blocks) {
    const auto block = sequence->block_table[static_cast<std::size_t>(sequence->cached_blocks)];
    cache_->insert(sequence->link, block_tokens(*sequence, sequence->cached_blocks), block, &sequence->link);
  }
}

void KvCacheManager::release(Sequence* sequence) {
  for (auto block = sequence->block_table.rbegin(); block != sequence->block_table.rend(); ++block)
    blocks_.release(*block);
  sequence->block_table.clear();
  sequence->computed = 0;
  sequence->cached_blocks = 0;
  sequence->link = sequence->request->root;
  sequence->link_lost = false;
}

}  // namespace chorus
