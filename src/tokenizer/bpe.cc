#include "tokenizer/bpe.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <bit>
#include <queue>

#include "base/check.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

constexpr std::size_t short_word = 40;  // symbols; below this a linear search for the best merge beats a heap
constexpr std::string_view metaspace = "\xE2\x96\x81";

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

std::size_t slot_of(std::uint64_t key, std::size_t mask) {
  key *= 0x9E3779B97F4A7C15u;
  return static_cast<std::size_t>(key ^ (key >> 29)) * 0xBF58476Du >> 7 & mask;
}

}  // namespace

void MergeTable::reserve(std::size_t count) {
  slots_.assign(std::bit_ceil(count + count / 2 + 16), Slot{});
}

void MergeTable::set(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t key = key_of(left, right);
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = slot_of(key, mask);
  while (slots_[at].key != key && slots_[at].merge.rank != no_rank) at = (at + 1) & mask;
  slots_[at] = {key, merge};
}

MergeTable::Merge MergeTable::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = key_of(left, right);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = slot_of(key, mask);; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.key == key || slot.merge.rank == no_rank) return slot.merge;
  }
}

void MergeTable::prefetch(std::int32_t left, std::int32_t right) const {
  __builtin_prefetch(&slots_[slot_of(key_of(left, right), slots_.size() - 1)]);
}

bool Bpe::may_cut(std::string_view piece, std::size_t at) const {
  const auto left = static_cast<unsigned char>(piece[at - 1]);
  const auto right = static_cast<unsigned char>(piece[at]);
  if ((right & 0xC0) == 0x80) return false;
  if (!neighbours_[left * 256u + right]) return true;
  return right == 0xE2 && !before_metaspace_[left] && piece.substr(at, metaspace.size()) == metaspace;
}

void Bpe::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (!may_cut_) {
    if (!piece.empty()) encode_word(piece, ids);
    return;
  }
  std::size_t begin = 0;
  for (std::size_t at = 1; at <= piece.size(); ++at) {
    if (at < piece.size() && !may_cut(piece, at)) continue;
    encode_word(piece.substr(begin, at - begin), ids);
    begin = at;
  }
}

void Bpe::encode_word(std::string_view word, std::vector<std::int32_t>& ids) const {
  const std::int32_t whole = (raw_bytes_ ? raw_ : vocabulary_).find(word);
  std::atomic<Memo>* const memo = whole == StringTable::none ? nullptr : &memo_[static_cast<std::size_t>(whole)];
  if (memo != nullptr && (ignore_merges_ || memo->load(std::memory_order_relaxed) == Memo::whole)) {
    ids.push_back(whole);
    return;
  }
  // The symbols are merged in place at the end of `ids`.
  const std::size_t begin = ids.size();
  split_symbols(word, ids);
  const std::span<std::int32_t> symbols(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end());
  const std::size_t left = symbols.size() <= short_word ? merge_short(symbols) : merge_long(symbols);
  ids.resize(begin + left);
  if (memo != nullptr) {
    const bool same = left == 1 && ids.back() == whole;
    memo->store(same ? Memo::whole : Memo::parts, std::memory_order_relaxed);
  }
}

std::int32_t Bpe::find_character(std::string_view word, std::size_t at, std::size_t size) const {
  const bool first = at == 0, last = at + size == word.size();
  const bool marked = (!first && !prefix_.empty()) || (last && !suffix_.empty());
  if (!marked && size == 1) return byte_ids_[static_cast<unsigned char>(word[at])];
  if (!marked) return vocabulary_.find(word.substr(at, size));
  return vocabulary_.find((first ? "" : prefix_) + std::string(word.substr(at, size)) + (last ? suffix_ : ""));
}

// The reference's order is kept even where it is odd: an unknown character is added when the next known one comes, so
// after the byte tokens between them.
void Bpe::split_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
  if (raw_bytes_) {
    for (const char byte : word) symbols.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    return;
  }
  bool unknown_waits = false;
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t size = character_at(word, at).size;
    const std::int32_t id = find_character(word, at, size);
    if (id != StringTable::none) {
      if (unknown_waits) symbols.push_back(*unknown_);
      unknown_waits = false;
      symbols.push_back(id);
    } else if (byte_fallback_ && !fallback_.empty()) {
      for (std::size_t n = 0; n < size; ++n) symbols.push_back(fallback_[static_cast<unsigned char>(word[at + n])]);
    } else if (unknown_) {
      if (unknown_waits && !fuse_unknown_) symbols.push_back(*unknown_);
      unknown_waits = true;
    }
    at += size;
  }
  if (unknown_waits) symbols.push_back(*unknown_);
}

MergeTable::Merge Bpe::first_merge(std::int32_t left, std::int32_t right) const {
  if (!raw_bytes_) return merges_.find(left, right);
  const std::uint16_t left_byte = byte_of_id_[static_cast<std::size_t>(left)];
  const std::uint16_t right_byte = byte_of_id_[static_cast<std::size_t>(right)];
  return byte_merges_[left_byte * 256u + right_byte];
}

// Merges the pair of the lowest rank, the leftmost of equals, until none is left. Returns how many symbols remain.
std::size_t Bpe::merge_short(std::span<std::int32_t> symbols) const {
  std::array<MergeTable::Merge, short_word> merges;  // merges[n]: of symbols n and n + 1
  std::size_t count = symbols.size();
  for (std::size_t n = 0; n + 1 < count; ++n) merges[n] = first_merge(symbols[n], symbols[n + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t n = 1; n + 1 < count; ++n) {
      if (merges[n].rank < merges[best].rank) best = n;
    }
    if (merges[best].rank == MergeTable::no_rank) break;
    symbols[best] = merges[best].id;
    std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              symbols.begin() + static_cast<std::ptrdiff_t>(count),
              symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    for (std::size_t n = best + 1; n + 2 < count; ++n) merges[n] = merges[n + 1];
    --count;
    if (best + 1 < count) merges[best] = merges_.find(symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = merges_.find(symbols[best - 1], symbols[best]);
  }
  return count;
}

// The same in O(n log n): a heap of (rank, position) over a linked list. Entries that a merge has made stale are known
// by their rank, which is unique to the pair.
std::size_t Bpe::merge_long(std::span<std::int32_t> symbols) const {
  constexpr std::uint32_t list_end = 0xFFFFFFFFu;
  CHECK(symbols.size() < list_end, "a word of {} symbols", symbols.size());
  const auto count = static_cast<std::uint32_t>(symbols.size());
  std::vector<std::uint32_t> next(count), previous(count);
  std::vector<bool> gone(count);
  std::vector<std::uint64_t> entries;
  entries.reserve(count);
  for (std::uint32_t n = 0; n < count; ++n) {
    next[n] = n + 1 < count ? n + 1 : list_end;
    previous[n] = n > 0 ? n - 1 : list_end;
    if (n + 1 == count) break;
    const MergeTable::Merge merge = first_merge(symbols[n], symbols[n + 1]);
    if (merge.rank != MergeTable::no_rank) entries.push_back(std::uint64_t{merge.rank} << 32 | n);
  }
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> heap(std::greater<>(),
                                                                                      std::move(entries));
  const auto consider = [&](std::uint32_t left) {
    if (left == list_end || next[left] == list_end) return;
    const MergeTable::Merge merge = merges_.find(symbols[left], symbols[next[left]]);
    if (merge.rank != MergeTable::no_rank) heap.push(std::uint64_t{merge.rank} << 32 | left);
  };
  while (!heap.empty()) {
    const std::uint64_t entry = heap.top();
    heap.pop();
    const auto left = static_cast<std::uint32_t>(entry);
    if (gone[left] || next[left] == list_end) continue;
    const std::uint32_t right = next[left];
    const MergeTable::Merge merge = merges_.find(symbols[left], symbols[right]);
    if (merge.rank != entry >> 32) continue;
    symbols[left] = merge.id;
    gone[right] = true;
    next[left] = next[right];
    if (next[left] != list_end) previous[next[left]] = left;
    consider(left);
    consider(previous[left]);
  }
  std::size_t kept = 0;
  for (std::uint32_t n = 0; n < count; ++n) {
    if (!gone[n]) symbols[kept++] = symbols[n];
  }
  return kept;
}

}  // namespace chorus
