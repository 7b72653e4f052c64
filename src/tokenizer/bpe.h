// Byte pair encoding: the "model" part of tokenizer.json.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/huge_pages.h"
#include "tokenizer/string_table.h"

namespace simdjson::dom {
class element;
}

namespace chorus {

struct BpeOptions {
  // encode() takes raw bytes where it would take byte-level characters, if the vocabulary allows it.
  bool raw_bytes = false;
  std::size_t tokens_max = 4u << 20;
  std::size_t merges_max = 8u << 20;
};

// (left id, right id) -> (rank, new id); open addressing, sixteen bytes an entry, at most two thirds full.
class MergeTable {
 public:
  static constexpr std::uint32_t no_rank = 0xFFFFFFFFu;
  struct Merge {
    std::uint32_t rank = no_rank;  // the lower, the earlier
    std::int32_t id = -1;
  };
  void reserve(std::size_t count);
  void set(std::int32_t left, std::int32_t right, Merge merge);  // a later entry for the same pair replaces the first
  Merge find(std::int32_t left, std::int32_t right) const;
  void prefetch(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t key = ~std::uint64_t{0};
    Merge merge;
  };
  std::vector<Slot, HugePages<Slot>> slots_;
};

// Immutable after load, but for a memo that only makes later calls faster; any number of threads.
class Bpe {
 public:
  // Errors name the entry: "model.merges[17]: ...".
  static Result<Bpe> load(const simdjson::dom::element& model, const BpeOptions& options = {});

  // Whether encode() takes raw bytes: as asked for in the options, unless the vocabulary lacks one of the 256 bytes or
  // marks word parts by prefix or suffix.
  bool raw_bytes() const { return raw_bytes_; }

  // Appends the ids of one piece. `piece` is UTF-8, or any bytes if raw_bytes().
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;

  const StringTable& vocabulary() const { return vocabulary_; }

  struct MergeParts {
    std::string_view left, right;
  };

 private:
  enum class Memo : std::uint8_t { unknown = 0, whole = 1, parts = 2 };

  Result<void> load_options(const simdjson::dom::element& model);
  Result<void> load_vocabulary(const simdjson::dom::element& model, const BpeOptions& options);
  Result<void> load_merges(const simdjson::dom::element& model, const BpeOptions& options);
  // `last_merged` is the id that the merge before the batch gives; returns that of the batch's last one.
  Result<std::int32_t> add_merges(std::span<const MergeParts> batch, std::size_t first_index, std::int32_t last_merged);
  std::int32_t find_merged(const MergeParts& parts, std::int32_t last_merged) const;
  void expect_cuts();
  bool has_raw_bytes() const;
  StringTable raw_strings() const;
  void use_raw_bytes();
  void note_neighbours(std::string_view token);

  void encode_word(std::string_view word, std::vector<std::int32_t>& ids) const;
  void split_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const;
  std::int32_t find_character(std::string_view word, std::size_t at, std::size_t size) const;
  MergeTable::Merge first_merge(std::int32_t left, std::int32_t right) const;
  std::size_t merge_short(std::span<std::int32_t> symbols) const;
  std::size_t merge_long(std::span<std::int32_t> symbols) const;
  bool may_cut(std::string_view piece, std::size_t at) const;

  StringTable vocabulary_;
  StringTable raw_;  // the same tokens as raw bytes, where they are made of byte-level characters
  MergeTable merges_;
  bool raw_bytes_ = false;
  bool ignore_merges_ = false;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  std::optional<std::int32_t> unknown_;
  std::string prefix_, suffix_;
  std::vector<std::int32_t> fallback_;          // byte -> id of "<0xNN>"; empty unless all 256 are there
  std::vector<std::int32_t> byte_ids_;          // raw byte, or ASCII character -> id, StringTable::none if none
  std::vector<MergeTable::Merge> byte_merges_;  // (left byte, right byte), with raw bytes only
  std::vector<std::uint16_t> byte_of_id_;       // the reverse of byte_ids_ with raw bytes; 256: no byte
  // Which neighbours some merged token contains. Where a text has others, no merge crosses, and a long text is cut.
  bool may_cut_ = false;
  std::vector<bool> neighbours_;               // [last byte of the left character][first byte of the right one]
  std::vector<bool> before_metaspace_;         // [last byte of the left character], the right one is U+2581
  std::unique_ptr<std::atomic<Memo>[]> memo_;  // by id: does merging the token's own characters give this token?
};

}  // namespace chorus
