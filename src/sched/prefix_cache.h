// Which KV block holds which tokens after which prefix. A full block is known by the chain of blocks before it and its
// own tokens, so a prompt that begins like an earlier one finds the earlier one's blocks, block by block from the
// front.
//
// Found by a keyed 128-bit hash chain, believed only after comparing: an entry stores its tokens and the identity of
// its parent entry (a number never used twice), so a colliding hash costs time and never gives another prompt's keys
// and values. Everything is allocated by the constructor. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/siphash.h"
#include "request/prefix_hash.h"
#include "sched/step_plan.h"

namespace chorus {

// A place in the chain: after the block of `entry`. Default: before the first block of a request without a salt.
struct PrefixLink {
  Hash128 hash;
  std::uint64_t entry = 0;
};

using PrefixHash = Hash128 (*)(const std::array<std::uint64_t, 2>& key, const Hash128& parent,
                               std::span<const TokenId> tokens);

class PrefixCache {
 public:
  // Entries for blocks 0..blocks-1, at most one per block. `hash` is another function only in tests.
  PrefixCache(std::int32_t blocks, std::int32_t block_size, const std::array<std::uint64_t, 2>& key,
              PrefixHash hash = prefix_hash);

  // Before the first block of a request with this cache salt; no salt: PrefixLink(). Chains of different salts have
  // different roots, told apart by 191 bits of a keyed hash.
  PrefixLink root(std::string_view salt) const;

  // The block that holds `tokens` (block_size of them) after `parent`; *link then is the place after it.
  std::optional<BlockId> find(const PrefixLink& parent, std::span<const TokenId> tokens, PrefixLink* link) const;

  // Records that `block`, which has no entry yet (CHECK), holds `tokens` after `parent`. When another block is known to
  // hold the same, that entry stays and `block` gets none. *link is the place after it either way. Returns whether it
  // was recorded.
  bool insert(const PrefixLink& parent, std::span<const TokenId> tokens, BlockId block, PrefixLink* link);

  // The block is about to hold something else.
  void erase(BlockId block);
  // Every block is about to hold something else: nothing is found any more.
  void clear();
  // From now on what changes is kept for take_changes(), and so grows until it is asked for.
  void keep_changes() { keeps_changes_ = true; }
  PrefixFeed take_changes() { return std::exchange(changes_, {}); }
  PrefixFeed all() const;  // what is in it
  bool contains(BlockId block) const { return entries_[static_cast<std::size_t>(block)].identity != 0; }
  std::int32_t size() const { return size_; }

 private:
  struct Entry {
    std::uint64_t identity = 0;  // 0: none
    std::uint64_t parent = 0;    // identity of the entry before it
    Hash128 hash;
    BlockId next = -1;  // in the same bucket
  };

  std::size_t bucket_of(const Hash128& hash) const { return hash.low & (buckets_.size() - 1); }
  BlockId find_entry(const PrefixLink& parent, const Hash128& hash, std::span<const TokenId> tokens) const;
  std::span<const TokenId> tokens_of(BlockId block) const;

  std::size_t block_size_;
  std::array<std::uint64_t, 2> key_;
  PrefixHash hash_;
  std::vector<BlockId> buckets_;  // first entry of each chain; a power of two of them
  std::vector<Entry> entries_;    // by block
  std::vector<TokenId> tokens_;   // block_size a block
  std::uint64_t next_identity_ = 1;
  std::int32_t size_ = 0;
  bool keeps_changes_ = false;
  PrefixFeed changes_;
};

}  // namespace chorus
