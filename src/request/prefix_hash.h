// Names of the beginnings of prompts, block by block: how an engine knows what it has computed before, and how those
// who send it requests know what it has.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/siphash.h"
#include "request/request.h"

namespace chorus {

// Secret, so that no user can make prompts whose names collide. One of all engines and front ends of a fleet.
struct PrefixKey {
  std::uint64_t first = 0, second = 0;
  std::array<std::uint64_t, 2> words() const { return {first, second}; }
  bool operator==(const PrefixKey&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.first, self.second); }
};

// Of the block `tokens` behind the chain `parent`: SipHash-2-4-128 of both. Before the first block: Hash128().
inline Hash128 prefix_hash(const std::array<std::uint64_t, 2>& key, const Hash128& parent,
                           std::span<const TokenId> tokens) {
  SipHash128 hash(key);
  hash.add(parent.low);
  hash.add(parent.high);
  const auto bits = [&](std::size_t i) { return std::uint64_t{static_cast<std::uint32_t>(tokens[i])}; };
  for (std::size_t i = 0; i + 1 < tokens.size(); i += 2) hash.add(bits(i) | (bits(i + 1) << 32));
  return tokens.size() % 2 == 0 ? hash.finish() : hash.finish(bits(tokens.size() - 1), 4);
}

// What an engine says of its prefix cache; a prefix is named by the low half of its hash.
struct PrefixChange {
  std::uint64_t prefix = 0;
  bool cached = false;  // or evicted
  bool operator==(const PrefixChange&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.prefix, self.cached); }
};
struct PrefixFeed {
  bool whole = false;                 // all that it has, instead of what has changed since the last feed
  std::vector<PrefixChange> changes;  // in their order
  bool operator==(const PrefixFeed&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.whole, self.changes); }
};

}  // namespace chorus
