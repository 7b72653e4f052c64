#include "tokenizer/string_table.h"

#include <bit>

namespace chorus {
void StringTable::reserve(std::size_t count, std::size_t bytes) {
  arena_.reserve(bytes);
  spans_.reserve(count);
  const std::size_t slots = std::bit_ceil(count * 2 + 16);
  if (slots > slots_.size()) grow(slots);
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

bool StringTable::insert(std::string_view text, std::int32_t id, std::uint64_t hash) {
  if (slots_.size() < (count_ + 1) * 2) grow(std::bit_ceil((count_ + 8) * 2));
  if (has(id)) return false;
  Slot& slot = slots_[slot_of(text, hash)];
  if (slot.id != none) return false;
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

}  // namespace chorus
