#include "sched/kv_cache_manager.h"

#include <algorithm>

#include "base/check.h"

namespace chorus {

KvCacheManager::KvCacheManager(std::int32_t blocks, const KvShape& shape, bool enable_prefix_caching,
                               const std::array<std::uint64_t, 2>& key, PrefixHash hash)
    : shape_(shape),
      block_size_(shape.block_size),
      cache_(enable_prefix_caching
                 ? std::optional<PrefixCache>(std::in_place, blocks, block_size_, key, hash, shape.window.tables)
                 : std::nullopt),
      blocks_(blocks, cache_ ? &*cache_ : nullptr, shape.pools) {}

std::span<const TokenId> KvCacheManager::block_tokens(const Sequence& sequence, std::int32_t index) const {
  return std::span(sequence.history)
      .subspan(static_cast<std::size_t>(index) * static_cast<std::size_t>(block_size_),
               static_cast<std::size_t>(block_size_));
}

// How many of found_ a sequence can go on after: the windowed tables must have what its next row sees.
std::size_t KvCacheManager::usable() const {
  std::size_t usable = 0, complete = 0;  // complete: the blocks before this one that have all their companions
  for (std::size_t i = 0; i < found_.size(); ++i) {
    bool has_all = true;
    for (std::int32_t table = 0; table < shape_.window.tables; ++table) {
      has_all = has_all && cache_->companion(found_[i].block, table) >= 0;
    }
    complete = has_all ? complete + 1 : 0;
    const auto end = static_cast<std::int32_t>(i + 1);
    const std::int32_t first = shape_.window.first_block(end * block_size_, block_size_);
    if (static_cast<std::int32_t>(complete) >= end - first) usable = i + 1;
  }
  return usable;
}

// The windowed tables of a sequence that goes on after `end` blocks, which begin with blocks of others.
template <typename BlockAt>
void KvCacheManager::share_windows(Sequence* sequence, std::int32_t end, const BlockAt& block_at) {
  sequence->window_first = shape_.window.first_block(end * block_size_, block_size_);
  for (std::int32_t t = 0; t < shape_.window.tables; ++t) {
    auto& table = sequence->window_tables[static_cast<std::size_t>(t)];
    table.resize(static_cast<std::size_t>(sequence->window_first));
    for (std::int32_t index = sequence->window_first; index < end; ++index) {
      table.push_back(block_at(t, static_cast<std::size_t>(index)));
      blocks_.share(table.back());
    }
  }
}

void KvCacheManager::take_cached(Sequence* sequence, std::int32_t blocks_max) {
  found_.clear();
  PrefixLink link = sequence->link;
  while (static_cast<std::int32_t>(found_.size()) < blocks_max) {
    const auto tokens = block_tokens(*sequence, static_cast<std::int32_t>(found_.size()));
    const std::optional<BlockId> block = cache_->find(link, tokens, &link);
    if (!block) break;
    found_.push_back({*block, link});
  }
  found_.resize(usable());
  if (found_.empty()) return;
  for (const Found& found : found_) {
    blocks_.share(found.block);
    sequence->block_table.push_back(found.block);
  }
  sequence->link = found_.back().link;
  sequence->cached_blocks = static_cast<std::int32_t>(found_.size());
  share_windows(sequence, sequence->cached_blocks,
                [&](std::int32_t table, std::size_t index) { return cache_->companion(found_[index].block, table); });
}

void KvCacheManager::take_from_sibling(Sequence* sequence, const Sequence& sibling, std::int32_t blocks_max) {
  const std::int32_t end = std::min(sibling.request->prompt_length / block_size_, blocks_max);
  CHECK(sibling.computed / block_size_ >= end, "sibling has computed {} tokens", sibling.computed);
  const std::size_t shared = sequence->block_table.size();
  if (shared >= static_cast<std::size_t>(end)) return;
  // It may have gone on so far that it has given back what a window sees at the end of the prompt.
  if (shape_.window.tables > 0 && sibling.window_first > shape_.window.first_block(end * block_size_, block_size_))
    return;
  // With the cache on it has already given all of these, unless an equal block that it knew them by was handed out.
  sequence->link_lost = cache_.has_value();
  for (std::size_t i = shared; i < static_cast<std::size_t>(end); ++i) {
    blocks_.share(sibling.block_table[i]);
    sequence->block_table.push_back(sibling.block_table[i]);
  }
  release_windows(sequence);
  share_windows(sequence, end, [&](std::int32_t table, std::size_t index) {
    return sibling.window_tables[static_cast<std::size_t>(table)][index];
  });
}

bool KvCacheManager::admit(Sequence* sequence, bool look_up, const Sequence* sibling) {
  CHECK(sequence->block_table.empty() && sequence->computed == 0, "sequence {} has blocks", sequence->id);
  sequence->window_tables.resize(static_cast<std::size_t>(shape_.window.tables));
  const std::int32_t blocks_max = (sequence->length() - 1) / block_size_;
  if (cache_ && look_up) take_cached(sequence, blocks_max);
  if (sibling != nullptr) take_from_sibling(sequence, *sibling, blocks_max);
  sequence->computed = static_cast<std::int32_t>(sequence->block_table.size()) * block_size_;
  if (!grow(sequence, sequence->length())) {
    release(sequence);
    return false;
  }
  if (cache_ && look_up) {
    counters_.queries += static_cast<std::uint64_t>(sequence->length());
    counters_.hits += static_cast<std::uint64_t>(sequence->computed);
  }
  return true;
}

void KvCacheManager::give_back_unseen(Sequence* sequence) {
  if (shape_.window.tables == 0) return;
  const std::int32_t first = shape_.window.first_kept(sequence->computed, block_size_);
  for (; sequence->window_first < first; ++sequence->window_first) {
    for (const auto& table : sequence->window_tables) {
      blocks_.release(table[static_cast<std::size_t>(sequence->window_first)]);
    }
  }
}

bool KvCacheManager::grow(Sequence* sequence, std::int32_t length) {
  give_back_unseen(sequence);
  const KvPools& pools = shape_.pools;
  const auto have = static_cast<std::int32_t>(sequence->block_table.size());
  const std::int32_t need = std::max(have, blocks_for(length));
  const auto window_have = static_cast<std::int32_t>(shape_.window.tables > 0 ? sequence->window_tables[0].size() : 0);
  const std::int32_t window_need =
      std::max(window_have, blocks_for(std::min(length, sequence->computed + shape_.rows_max)));
  const std::int64_t of_windows = std::int64_t{shape_.window.tables} * (window_need - window_have);
  for (std::int32_t pool = 0; pool < pools.pools; ++pool) {
    if (pools.needed(need, pool) - pools.needed(have, pool) + of_windows > blocks_.free_in(pool)) return false;
  }
  for (std::int32_t index = have; index < need; ++index) {
    sequence->block_table.push_back(blocks_.allocate(pools.pool_of_index(index)));
  }
  for (auto& table : sequence->window_tables) {
    for (std::int32_t index = window_have; index < window_need; ++index) table.push_back(blocks_.allocate());
  }
  return true;
}

void KvCacheManager::remember(Sequence* sequence) {
  if (!cache_ || sequence->link_lost) return;
  for (; (sequence->cached_blocks + 1) * block_size_ <= sequence->computed; ++sequence->cached_blocks) {
    const auto index = static_cast<std::size_t>(sequence->cached_blocks);
    const BlockId entry = cache_->insert(sequence->link, block_tokens(*sequence, sequence->cached_blocks),
                                         sequence->block_table[index], &sequence->link);
    for (std::int32_t table = 0; table < shape_.window.tables; ++table) {
      cache_->attach(entry, table, sequence->window_tables[static_cast<std::size_t>(table)][index]);
    }
  }
}

void KvCacheManager::release_windows(Sequence* sequence) {
  for (auto& table : sequence->window_tables) {
    while (static_cast<std::int32_t>(table.size()) > sequence->window_first) {
      blocks_.release(table.back());
      table.pop_back();
    }
    table.clear();
  }
  sequence->window_first = 0;
}

void KvCacheManager::release(Sequence* sequence) {
  release_windows(sequence);
  for (auto block = sequence->block_table.rbegin(); block != sequence->block_table.rend(); ++block)
    blocks_.release(*block);
  sequence->block_table.clear();
  sequence->computed = 0;
  sequence->cached_blocks = 0;
  sequence->link = sequence->request->root;
  sequence->link_lost = false;
}

}  // namespace chorus
