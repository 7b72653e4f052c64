// Which KV block holds which tokens after which prefix. A full block is known by the chain of blocks before it and its
// own tokens, so a prompt that begins like an earlier one finds the earlier one's blocks, block by block from the
// front.
//
// Where layers with a sliding window keep blocks of their own (kv_shape.h), those are known as companions of the block
// that holds the same tokens for the other layers: its entry is theirs, and they are forgotten with it.
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
  // Entries for blocks 0..blocks-1, at most one per block, each with at most one companion in each of `window_tables`.
  // `hash` is another function only in tests.
  PrefixCache(std::int32_t blocks, std::int32_t block_size, const std::array<std::uint64_t, 2>& key,
              PrefixHash hash = prefix_hash, std::int32_t window_tables = 0);

  // Before the first block of a request with this cache salt; no salt: PrefixLink(). Chains of different salts have
  // different roots, told apart by 191 bits of a keyed hash.
  PrefixLink root(std::string_view salt) const;

  // The block that holds `tokens` (block_size of them) after `parent`; *link then is the place after it.
  std::optional<BlockId> find(const PrefixLink& parent, std::span<const TokenId> tokens, PrefixLink* link) const;

  // Records that `block`, which has no entry yet (CHECK), holds `tokens` after `parent`. When another block is known to
  // hold the same, that entry stays and `block` gets none. *link is the place after it either way. Returns the block
  // whose entry it is.
  BlockId insert(const PrefixLink& parent, std::span<const TokenId> tokens, BlockId block, PrefixLink* link);

  // The windowed block `block`, which is not known yet (CHECK), holds the same tokens as `entry`, which is in the cache
  // (CHECK), for the layers of that table. Where one is known already it stays.
  void attach(BlockId entry, std::int32_t table, BlockId block);
  BlockId companion(BlockId entry, std::int32_t table) const { return companions_[place(entry, table)]; }  // -1: none

  // The block is about to hold something else.
  void erase(BlockId block);
  // Every block is about to hold something else: nothing is found any more.
  void clear();
  // From now on what changes is kept for take_changes(), and so grows until it is asked for.
  void keep_changes() { keeps_changes_ = true; }
  PrefixFeed take_changes() { return std::exchange(changes_, {}); }
  PrefixFeed all() const;  // what is in it
  // With an entry, or as a companion of one.
  bool contains(BlockId block) const { return has_entry(block) || is_companion(block); }
  std::int32_t size() const { return size_; }

 private:
  struct Entry {
    std::uint64_t identity = 0;  // 0: none
    std::uint64_t parent = 0;    // identity of the entry before it
    Hash128 hash;
    BlockId next = -1;  // in the same bucket
  };

  std::size_t bucket_of(const Hash128& hash) const { return hash.low & (buckets_.size() - 1); }
  bool has_entry(BlockId block) const { return entries_[static_cast<std::size_t>(block)].identity != 0; }
  bool is_companion(BlockId block) const {
    return window_tables_ > 0 && companion_at_[static_cast<std::size_t>(block)] != nowhere;
  }
  std::size_t place(BlockId entry, std::int32_t table) const {
    return static_cast<std::size_t>(entry) * static_cast<std::size_t>(window_tables_) + static_cast<std::size_t>(table);
  }
  void detach(BlockId block);
  BlockId find_entry(const PrefixLink& parent, const Hash128& hash, std::span<const TokenId> tokens) const;
  std::span<const TokenId> tokens_of(BlockId block) const;

  std::size_t block_size_;
  std::array<std::uint64_t, 2> key_;
  PrefixHash hash_;
  std::vector<BlockId> buckets_;  // first entry of each chain; a power of two of them
  std::vector<Entry> entries_;    // by block
  std::vector<TokenId> tokens_;   // block_size a block
  static constexpr std::size_t nowhere = SIZE_MAX;
  std::int32_t window_tables_;
  std::vector<BlockId> companions_;        // by entry and table
  std::vector<std::size_t> companion_at_;  // by block: where in companions_ it stands, or nowhere
  std::uint64_t next_identity_ = 1;
  std::int32_t size_ = 0;
  bool keeps_changes_ = false;
  PrefixFeed changes_;
};

}  // namespace chorus
