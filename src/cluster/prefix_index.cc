#include "cluster/prefix_index.h"

namespace chorus {

void PrefixIndex::update(int replica, const PrefixFeed& feed) {
  auto& prefixes = prefixes_[replica];
  if (feed.whole) prefixes.clear();
  for (const PrefixChange& change : feed.changes) {
    if (change.cached) {
      prefixes.insert(change.prefix);
    } else {
      prefixes.erase(change.prefix);
    }
  }
}

void PrefixIndex::forget(int replica) {
  prefixes_.erase(replica);
}

std::vector<std::uint64_t> PrefixIndex::held(std::span<const TokenId> prompt, std::span<const int> replicas) const {
  std::vector<std::uint64_t> tokens(replicas.size(), 0);
  std::vector<std::size_t> still_there;  // places of those that have all blocks so far
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    if (prefixes_.contains(replicas[i])) still_there.push_back(i);
  }
  Hash128 hash;
  for (std::size_t end = block_size_; end < prompt.size() && !still_there.empty(); end += block_size_) {
    hash = prefix_hash(key_, hash, prompt.subspan(end - block_size_, block_size_));
    std::erase_if(still_there, [&](std::size_t i) { return !prefixes_.at(replicas[i]).contains(hash.low); });
    for (const std::size_t i : still_there) tokens[i] = end;
  }
  return tokens;
}

}  // namespace chorus
