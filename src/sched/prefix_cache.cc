#include "sched/prefix_cache.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace chorus {

PrefixCache::PrefixCache(std::int32_t blocks, std::int32_t block_size, const std::array<std::uint64_t, 2>& key,
                         PrefixHash hash, std::int32_t window_tables)
    : block_size_(static_cast<std::size_t>(block_size)), key_(key), hash_(hash), window_tables_(window_tables) {
  const auto count = static_cast<std::size_t>(blocks);
  buckets_.assign(std::bit_ceil(count + 1), -1);
  entries_.resize(count);
  tokens_.resize(count * block_size_);
  companions_.assign(count * static_cast<std::size_t>(window_tables), -1);
  if (window_tables > 0) companion_at_.assign(count, nowhere);
}

PrefixLink PrefixCache::root(std::string_view salt) const {
  if (salt.empty()) return {};
  constexpr std::uint64_t of_roots = std::uint64_t{1} << 63;  // no entry's identity
  ByteHash hash(key_);
  hash.add(salt);
  const Hash128 value = hash.value();
  return {value, value.low | of_roots};
}

std::span<const TokenId> PrefixCache::tokens_of(BlockId block) const {
  return std::span(tokens_).subspan(static_cast<std::size_t>(block) * block_size_, block_size_);
}

BlockId PrefixCache::find_entry(const PrefixLink& parent, const Hash128& hash, std::span<const TokenId> tokens) const {
  CHECK(tokens.size() == block_size_, "{} tokens, a block has {}", tokens.size(), block_size_);
  for (BlockId block = buckets_[bucket_of(hash)]; block >= 0; block = entries_[static_cast<std::size_t>(block)].next) {
    const Entry& entry = entries_[static_cast<std::size_t>(block)];
    if (entry.hash == hash && entry.parent == parent.entry && std::ranges::equal(tokens_of(block), tokens))
      return block;
  }
  return -1;
}

std::optional<BlockId> PrefixCache::find(const PrefixLink& parent, std::span<const TokenId> tokens,
                                         PrefixLink* link) const {
  const Hash128 hash = hash_(key_, parent.hash, tokens);
  const BlockId block = find_entry(parent, hash, tokens);
  if (block < 0) return std::nullopt;
  *link = {hash, entries_[static_cast<std::size_t>(block)].identity};
  return block;
}

BlockId PrefixCache::insert(const PrefixLink& parent, std::span<const TokenId> tokens, BlockId block,
                            PrefixLink* link) {
  CHECK(!contains(block), "block {} has an entry already", block);
  const Hash128 hash = hash_(key_, parent.hash, tokens);
  if (const BlockId known = find_entry(parent, hash, tokens); known >= 0) {
    *link = {hash, entries_[static_cast<std::size_t>(known)].identity};
    return known;
  }
  BlockId& first = buckets_[bucket_of(hash)];
  entries_[static_cast<std::size_t>(block)] = {next_identity_, parent.entry, hash, first};
  first = block;
  std::ranges::copy(tokens,
                    tokens_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(block) * block_size_));
  *link = {hash, next_identity_++};
  ++size_;
  if (keeps_changes_) changes_.changes.push_back({hash.low, true});
  return block;
}

void PrefixCache::attach(BlockId entry, std::int32_t table, BlockId block) {
  CHECK(has_entry(entry) && !contains(block), "block {} of table {} cannot go with block {}", block, table, entry);
  const std::size_t at = place(entry, table);
  if (companions_[at] >= 0) return;
  companions_[at] = block;
  companion_at_[static_cast<std::size_t>(block)] = at;
}

void PrefixCache::detach(BlockId block) {
  companions_[std::exchange(companion_at_[static_cast<std::size_t>(block)], nowhere)] = -1;
}

void PrefixCache::erase(BlockId block) {
  CHECK(contains(block), "block {} has no entry", block);
  if (is_companion(block)) return detach(block);
  for (std::int32_t table = 0; table < window_tables_; ++table) {
    if (const BlockId gone = companion(block, table); gone >= 0) detach(gone);
  }
  Entry& gone = entries_[static_cast<std::size_t>(block)];
  BlockId* at = &buckets_[bucket_of(gone.hash)];
  while (*at != block) at = &entries_[static_cast<std::size_t>(*at)].next;
  *at = gone.next;
  if (keeps_changes_) changes_.changes.push_back({gone.hash.low, false});
  gone = {};
  --size_;
}

void PrefixCache::clear() {
  for (std::size_t block = 0; block < entries_.size(); ++block) {
    if (entries_[block].identity != 0) erase(static_cast<BlockId>(block));
  }
}

PrefixFeed PrefixCache::all() const {
  PrefixFeed feed;
  feed.whole = true;
  for (const Entry& entry : entries_) {
    if (entry.identity != 0) feed.changes.push_back({entry.hash.low, true});
  }
  return feed;
}

}  // namespace chorus
