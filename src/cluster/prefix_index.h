// Which replica has which beginnings of prompts in its prefix cache, as far as it has said so. A hint: what a replica
// has evicted since its last word is still here, and what it is computing is not yet.
//
// Pure. Memory: about 40 bytes a cached block of each replica.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <unordered_set>
#include <vector>

#include "request/prefix_hash.h"

namespace chorus {

class PrefixIndex {
 public:
  // `key` and `block_size`: the engines'.
  PrefixIndex(PrefixKey key, std::size_t block_size) : key_(key.words()), block_size_(block_size) {}

  void update(int replica, const PrefixFeed& feed);
  void forget(int replica);  // it is no more

  // Of each of `replicas`: how many of the prompt's first tokens it has, in whole blocks; parallel to them. The last
  // token is always computed.
  std::vector<std::uint64_t> held(std::span<const TokenId> prompt, std::span<const int> replicas) const;

 private:
  std::array<std::uint64_t, 2> key_;
  std::size_t block_size_;
  std::map<int, std::unordered_set<std::uint64_t>> prefixes_;
};

}  // namespace chorus
