// Token strings and their ids, both ways: one arena of bytes, open addressing, no allocation per token. A vocabulary of
// 128,000 entries is built in a few milliseconds and looked up without a pointer chase per character.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/huge_pages.h"

namespace chorus {

// 64-bit multiply-and-fold (as in wyhash): all input bytes reach all output bits. For tables in memory only.
inline std::uint64_t hash_bytes(std::string_view text) {
  constexpr std::uint64_t multiplier = 0x9E3779B97F4A7C15u;
  constexpr std::uint64_t secret = 0xA0761D6478BD642Fu;
  const auto fold = [](std::uint64_t value) {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(value) * secret;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  };
  const auto load = [](const char* from, auto word) {
    std::memcpy(&word, from, sizeof(word));
    return std::uint64_t{word};
  };
  const char* at = text.data();
  std::size_t left = text.size();
  std::uint64_t hash = left * multiplier;
  for (; left > 8; left -= 8, at += 8) hash = fold(hash ^ load(at, std::uint64_t{}));
  std::uint64_t tail = 0;
  if (left >= 4) {
    tail = load(at, std::uint32_t{}) << 32 | load(at + left - 4, std::uint32_t{});
  } else if (left > 0) {
    const auto byte = [&](std::size_t n) { return static_cast<std::uint64_t>(static_cast<unsigned char>(at[n])); };
    tail = byte(0) << 16 | byte(left / 2) << 8 | byte(left - 1);
  }
  return fold(hash ^ tail ^ multiplier);
}

class StringTable {
 public:
  static constexpr std::int32_t none = -1;

  void reserve(std::size_t count, std::size_t bytes);
  // False if the string or the id is there already; then nothing is changed. `id` >= 0. Empty strings are allowed.
  bool insert(std::string_view text, std::int32_t id) { return insert(text, id, hash_bytes(text)); }
  bool insert(std::string_view text, std::int32_t id, std::uint64_t hash);
  std::int32_t find(std::string_view text) const { return find(text, hash_bytes(text)); }
  // For many at once: hash, prefetch the slots of all, prefetch their strings (to find), then find or insert with the
  // hash.
  std::int32_t find(std::string_view text, std::uint64_t hash) const {
    return slots_.empty() ? none : slots_[slot_of(text, hash)].id;
  }
  void prefetch_slot(std::uint64_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]);
  }
  void prefetch_string(std::uint64_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(arena_.data() + slots_[hash & (slots_.size() - 1)].offset);
  }
  bool has(std::int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < spans_.size() && spans_[static_cast<std::size_t>(id)].used;
  }
  // The string of an id that has() knows.
  std::string_view at(std::int32_t id) const {
    const Span& span = spans_[static_cast<std::size_t>(id)];
    return {arena_.data() + span.offset, span.length};
  }
  std::size_t size() const { return count_; }
  std::int32_t id_end() const { return static_cast<std::int32_t>(spans_.size()); }  // highest id + 1

 private:
  struct Span {
    std::uint32_t offset = 0;
    std::uint32_t length : 31 = 0;
    std::uint32_t used : 1 = 0;
  };
  // The place of the string is kept here too: a look-up touches the slot and the arena, nothing between.
  struct Slot {
    std::uint32_t tag = 0;  // the hash's upper half
    std::int32_t id = none;
    std::uint32_t offset = 0, length = 0;
  };
  std::size_t slot_of(std::string_view text, std::uint64_t hash) const {
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.id == none) return at;
      if (slot.tag == tag && std::string_view(arena_.data() + slot.offset, slot.length) == text) return at;
    }
  }
  void grow(std::size_t slots);

  std::string arena_;
  std::vector<Span> spans_;                   // by id
  std::vector<Slot, HugePages<Slot>> slots_;  // a power of two, at most half full
  std::size_t count_ = 0;
};

}  // namespace chorus
