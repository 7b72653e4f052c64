#include "text/string_table.h"

#include <bit>

namespace chorus {
namespace {

std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

template <typename Word>
std::uint64_t load(const char* from) {
  Word word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
constexpr std::uint64_t kSecret = 0xA0761D6478BD642Fu;

}  // namespace

std::uint64_t hash_bytes(std::string_view text) {
  const char* at = text.data();
  std::size_t left = text.size();
  std::uint64_t hash = left * kMultiplier;
  for (; left > 8; left -= 8, at += 8) hash = fold(hash ^ load<std::uint64_t>(at), kSecret);
  std::uint64_t tail = 0;
  if (left >= 4) {
    tail = load<std::uint32_t>(at) << 32 | load<std::uint32_t>(at + left - 4);
  } else if (left > 0) {
    const auto byte = [&](std::size_t n) { return static_cast<std::uint64_t>(static_cast<unsigned char>(at[n])); };
    tail = byte(0) << 16 | byte(left / 2) << 8 | byte(left - 1);
  }
  return fold(hash ^ tail ^ kMultiplier, kSecret);
}

void StringTable::reserve(std::size_t count, std::size_t bytes) {
  arena_.reserve(bytes);
  spans_.reserve(count);
  const std::size_t slots = std::bit_ceil(count * 2 + 16);
  if (slots > slots_.size()) grow(slots);
}

std::size_t StringTable::slot_of(std::string_view text, std::uint64_t hash) const {
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.id == kNone) return at;
    if (slot.tag == tag && std::string_view(arena_.data() + slot.offset, slot.length) == text) return at;
  }
}

void StringTable::grow(std::size_t slots) {
  slots_.assign(slots, Slot{});
  for (std::size_t id = 0; id < spans_.size(); ++id) {
    if (!spans_[id].used) continue;
    const std::string_view text = at(static_cast<std::int32_t>(id));
    const std::uint64_t hash = hash_bytes(text);
    slots_[slot_of(text, hash)] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::int32_t>(id),
                                   spans_[id].offset, spans_[id].length};
  }
}

bool StringTable::insert(std::string_view text, std::int32_t id) {
  if (slots_.size() < (count_ + 1) * 2) grow(std::bit_ceil((count_ + 8) * 2));
  if (has(id)) return false;
  const std::uint64_t hash = hash_bytes(text);
  Slot& slot = slots_[slot_of(text, hash)];
  if (slot.id != kNone) return false;
  if (static_cast<std::size_t>(id) >= spans_.size()) spans_.resize(static_cast<std::size_t>(id) + 1);
  Span& span = spans_[static_cast<std::size_t>(id)];
  span.offset = static_cast<std::uint32_t>(arena_.size());
  span.length = static_cast<std::uint32_t>(text.size()) & 0x7FFFFFFFu;
  span.used = 1;
  arena_ += text;
  slot = {static_cast<std::uint32_t>(hash >> 32), id, span.offset, span.length};
  ++count_;
  return true;
}

std::int32_t StringTable::find(std::string_view text, std::uint64_t hash) const {
  if (slots_.empty()) return kNone;
  return slots_[slot_of(text, hash)].id;
}

void StringTable::prefetch_slot(std::uint64_t hash) const {
  if (!slots_.empty()) __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]);
}

void StringTable::prefetch_string(std::uint64_t hash) const {
  if (!slots_.empty()) __builtin_prefetch(arena_.data() + slots_[hash & (slots_.size() - 1)].offset);
}

}  // namespace chorus
