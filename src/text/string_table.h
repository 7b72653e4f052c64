// Token strings and their ids, both ways: one arena of bytes, open addressing, no allocation per token. A vocabulary of
// 128,000 entries is built in a few milliseconds and looked up without a pointer chase per character.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace chorus {

// 64-bit multiply-and-fold (as in wyhash): all input bytes reach all output bits. For tables in memory only.
std::uint64_t hash_bytes(std::string_view text);

class StringTable {
 public:
  static constexpr std::int32_t kNone = -1;

  void reserve(std::size_t count, std::size_t bytes);
  // False if the string or the id is there already; then nothing is changed. `id` >= 0. Empty strings are allowed.
  bool insert(std::string_view text, std::int32_t id);
  std::int32_t find(std::string_view text) const { return find(text, hash_bytes(text)); }
  // For many look-ups at once: hash, prefetch the slots of all, prefetch their strings, then find with the hash.
  std::int32_t find(std::string_view text, std::uint64_t hash) const;
  void prefetch_slot(std::uint64_t hash) const;
  void prefetch_string(std::uint64_t hash) const;
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
    std::int32_t id = kNone;
    std::uint32_t offset = 0, length = 0;
  };
  std::size_t slot_of(std::string_view text, std::uint64_t hash) const;
  void grow(std::size_t slots);

  std::string arena_;
  std::vector<Span> spans_;  // by id
  std::vector<Slot> slots_;  // a power of two, at most half full
  std::size_t count_ = 0;
};

}  // namespace chorus
