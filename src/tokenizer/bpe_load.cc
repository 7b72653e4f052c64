#include <simdjson.h>

#include <array>
#include <future>

#include "json/utf8.h"
#include "tokenizer/bpe.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

namespace dom = simdjson::dom;

Result<bool> read_flag(dom::element model, const char* key) {
  dom::element value;
  if (model[key].get(value) != simdjson::SUCCESS || value.is_null()) return false;
  bool flag = false;
  if (value.get(flag) == simdjson::SUCCESS) return flag;
  return fail(ErrorCode::invalid_argument, "model.{}: must be true or false", key);
}

// Empty when the key is missing or null.
Result<std::string> read_text(dom::element model, const char* key) {
  dom::element value;
  if (model[key].get(value) != simdjson::SUCCESS || value.is_null()) return std::string();
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  return fail(ErrorCode::invalid_argument, "model.{}: must be a string or null", key);
}

constexpr std::size_t merge_batch = 32;
constexpr std::uint16_t no_byte = 256;
constexpr std::size_t prefetch_ahead = 16;  // tokens

using MergeParts = Bpe::MergeParts;

// "a b" or ["a", "b"].
Result<MergeParts> read_merge(dom::element entry, std::size_t index) {
  const auto malformed = [&] {
    return fail(ErrorCode::invalid_argument, "model.merges[{}]: must be two tokens, \"a b\" or [\"a\", \"b\"]", index);
  };
  std::string_view text;
  if (entry.get(text) == simdjson::SUCCESS) {
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) return malformed();
    return MergeParts{text.substr(0, space), text.substr(space + 1)};
  }
  dom::array pair;
  if (entry.get(pair) != simdjson::SUCCESS || pair.size() != 2) return malformed();
  MergeParts parts;
  auto token = pair.begin();
  if ((*token).get(parts.left) != simdjson::SUCCESS) return malformed();
  if ((*++token).get(parts.right) != simdjson::SUCCESS) return malformed();
  return parts;
}

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with('>');
}

std::string byte_token(unsigned byte) {
  return fmt::format("<0x{:02X}>", byte);
}

Error no_such_token(std::size_t index, std::string_view token) {
  return fail(ErrorCode::invalid_argument, "model.merges[{}]: token \"{}\" is not in model.vocab", index, token);
}

}  // namespace

Result<Bpe> Bpe::load(const dom::element& model, const BpeOptions& options) {
  Bpe bpe;
  CHORUS_TRY_VOID(bpe.load_vocabulary(model, options));
  CHORUS_TRY_VOID(bpe.load_options(model));
  bpe.raw_bytes_ = options.raw_bytes && bpe.has_raw_bytes();
  // The raw strings and the merges need nothing of each other; where there is no second thread, get() does the work.
  std::future<StringTable> raw;
  if (bpe.raw_bytes_) raw = std::async([&bpe] { return bpe.raw_strings(); });
  CHORUS_TRY_VOID(bpe.load_merges(model, options));
  if (bpe.raw_bytes_) {
    bpe.raw_ = raw.get();
    bpe.use_raw_bytes();
  }
  bpe.memo_ = std::make_unique<std::atomic<Memo>[]>(static_cast<std::size_t>(bpe.vocabulary_.id_end()));
  return bpe;
}

Result<void> Bpe::load_options(const dom::element& model) {
  dom::element dropout;
  if (model["dropout"].get(dropout) == simdjson::SUCCESS && !dropout.is_null()) {
    double probability = -1;
    if (dropout.get(probability) != simdjson::SUCCESS || probability != 0) {
      return fail(ErrorCode::invalid_argument, "model.dropout: must be null or 0; dropout would make ids random");
    }
  }
  CHORUS_TRY(ignore_merges_, read_flag(model, "ignore_merges"));
  CHORUS_TRY(fuse_unknown_, read_flag(model, "fuse_unk"));
  CHORUS_TRY(byte_fallback_, read_flag(model, "byte_fallback"));
  CHORUS_TRY(prefix_, read_text(model, "continuing_subword_prefix"));
  CHORUS_TRY(suffix_, read_text(model, "end_of_word_suffix"));
  CHORUS_TRY(const std::string unknown, read_text(model, "unk_token"));
  if (unknown.empty()) return {};
  const std::int32_t id = vocabulary_.find(unknown);
  if (id == StringTable::none) {
    return fail(ErrorCode::invalid_argument, "model.unk_token: \"{}\" is not in model.vocab", unknown);
  }
  unknown_ = id;
  return {};
}

Result<void> Bpe::load_vocabulary(const dom::element& model, const BpeOptions& options) {
  dom::object vocabulary;
  if (model["vocab"].get(vocabulary) != simdjson::SUCCESS) {
    return fail(ErrorCode::invalid_argument, "model.vocab: must be an object of tokens and ids");
  }
  std::size_t count = 0, bytes = 0;
  std::vector<std::uint64_t> hashes;
  hashes.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary) {
    ++count;
    bytes += token.size();
    hashes.push_back(hash_bytes(token));
  }
  if (count > options.tokens_max || bytes >= std::size_t{1} << 31) {
    return fail(ErrorCode::invalid_argument, "model.vocab: {} tokens are over the limit of {}", count,
                options.tokens_max);
  }
  vocabulary_.reserve(count, bytes);
  std::size_t index = 0;
  for (const auto& [token, value] : vocabulary) {
    const std::uint64_t hash = hashes[index++];
    if (index + prefetch_ahead < count) vocabulary_.prefetch_slot(hashes[index + prefetch_ahead]);
    std::uint64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS || id >= options.tokens_max) {
      return fail(ErrorCode::invalid_argument, "model.vocab[\"{}\"]: the id must be a whole number from 0 to {}", token,
                  options.tokens_max - 1);
    }
    if (vocabulary_.insert(token, static_cast<std::int32_t>(id), hash)) continue;
    const bool twice = vocabulary_.find(token) != StringTable::none;
    if (twice) return fail(ErrorCode::invalid_argument, "model.vocab[\"{}\"]: the token is there twice", token);
    return fail(ErrorCode::invalid_argument, "model.vocab[\"{}\"]: id {} is also that of \"{}\"", token, id,
                vocabulary_.at(static_cast<std::int32_t>(id)));
  }
  byte_ids_.assign(256, StringTable::none);
  for (unsigned byte = 0; byte < 128; ++byte) {
    const char text = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary_.find({&text, 1});
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::int32_t id = vocabulary_.find(byte_token(byte));
    if (id == StringTable::none) {
      fallback_.clear();
      break;
    }
    fallback_.push_back(id);
  }
  return {};
}

Result<void> Bpe::load_merges(const dom::element& model, const BpeOptions& options) {
  dom::array merges;
  if (model["merges"].get(merges) != simdjson::SUCCESS) {
    return fail(ErrorCode::invalid_argument, "model.merges: must be an array");
  }
  std::size_t count = 0;
  for ([[maybe_unused]] const dom::element entry : merges) ++count;
  if (count > options.merges_max) {
    return fail(ErrorCode::invalid_argument, "model.merges: {} entries are over the limit of {}", count,
                options.merges_max);
  }
  merges_.reserve(count);
  expect_cuts();
  std::vector<MergeParts> batch;
  batch.reserve(merge_batch);
  std::int32_t last_merged = StringTable::none;
  std::size_t index = 0;
  for (const dom::element entry : merges) {
    CHORUS_TRY(const MergeParts parts, read_merge(entry, index + batch.size()));
    batch.push_back(parts);
    if (batch.size() < merge_batch) continue;
    CHORUS_TRY(last_merged, add_merges(batch, index, last_merged));
    index += batch.size();
    batch.clear();
  }
  CHORUS_TRY(last_merged, add_merges(batch, index, last_merged));
  return {};
}

// Nearly every file has its merges in the order of the tokens they give, so a merge gives the token of the merge before
// it or the one after that token: comparing the strings there is cheaper than building and hashing the merged one.
std::int32_t Bpe::find_merged(const MergeParts& parts, std::int32_t last_merged) const {
  const std::string_view left = parts.left, right = parts.right.substr(prefix_.size());
  for (const std::int32_t id : {last_merged, last_merged + 1}) {
    if (!vocabulary_.has(id)) continue;
    const std::string_view token = vocabulary_.at(id);
    if (token.size() == left.size() + right.size() && token.starts_with(left) && token.ends_with(right)) return id;
  }
  return vocabulary_.find(std::string(left).append(right));
}

// The look-ups of a batch run side by side: the tables are larger than the caches, and waiting for one entry after the
// other would take most of the loading time.
Result<std::int32_t> Bpe::add_merges(std::span<const MergeParts> batch, std::size_t first_index,
                                     std::int32_t last_merged) {
  struct Entry {
    std::array<std::uint64_t, 2> hashes;
    std::array<std::int32_t, 2> ids;  // left, right
    std::int32_t merged;
  };
  std::array<Entry, merge_batch> entries;
  for (std::size_t n = 0; n < batch.size(); ++n) {
    const auto& [left, right] = batch[n];
    if (right.size() < prefix_.size()) {
      return fail(ErrorCode::invalid_argument, "model.merges[{}]: \"{}\" lacks the continuing_subword_prefix",
                  first_index + n, right);
    }
    entries[n].hashes = {hash_bytes(left), hash_bytes(right)};
    for (const std::uint64_t hash : entries[n].hashes) vocabulary_.prefetch_slot(hash);
  }
  for (std::size_t n = 0; n < batch.size(); ++n) {
    for (const std::uint64_t hash : entries[n].hashes) vocabulary_.prefetch_string(hash);
    entries[n].merged = find_merged(batch[n], last_merged);
    last_merged = entries[n].merged;
  }
  for (std::size_t n = 0; n < batch.size(); ++n) {
    Entry& entry = entries[n];
    const auto& [left, right] = batch[n];
    entry.ids = {vocabulary_.find(left, entry.hashes[0]), vocabulary_.find(right, entry.hashes[1])};
    if (entry.ids[0] == StringTable::none) return no_such_token(first_index + n, left);
    if (entry.ids[1] == StringTable::none) return no_such_token(first_index + n, right);
    if (entry.merged == StringTable::none) {
      return no_such_token(first_index + n, std::string(left).append(right.substr(prefix_.size())));
    }
    merges_.prefetch(entry.ids[0], entry.ids[1]);
  }
  for (std::size_t n = 0; n < batch.size(); ++n) {
    const Entry& entry = entries[n];
    merges_.set(entry.ids[0], entry.ids[1], {static_cast<std::uint32_t>(first_index + n), entry.merged});
    if (!may_cut_) continue;
    note_neighbours(vocabulary_.at(entry.merged));
    may_cut_ = !is_byte_token(batch[n].left) && !is_byte_token(batch[n].right);
  }
  return last_merged;
}

bool Bpe::has_raw_bytes() const {
  if (!prefix_.empty() || !suffix_.empty()) return false;
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (vocabulary_.find(byte_level_character(static_cast<unsigned char>(byte))) == StringTable::none) return false;
  }
  return true;
}

// In batches: the slots of a batch come into the cache side by side.
StringTable Bpe::raw_strings() const {
  struct Entry {
    std::string bytes;
    std::uint64_t hash;
    std::int32_t id;
  };
  std::array<Entry, prefetch_ahead> batch;
  StringTable raw;
  raw.reserve(vocabulary_.size(), vocabulary_.size() * 8);
  std::size_t size = 0;
  for (std::int32_t id = 0; id < vocabulary_.id_end(); ++id) {
    Entry& entry = batch[size];
    if (vocabulary_.has(id) && from_byte_level(vocabulary_.at(id), entry.bytes)) {
      entry.id = id;
      entry.hash = hash_bytes(entry.bytes);
      raw.prefetch_slot(entry.hash);
      ++size;
    }
    if (size < batch.size() && id + 1 < vocabulary_.id_end()) continue;
    for (std::size_t n = 0; n < size; ++n) raw.insert(batch[n].bytes, batch[n].id, batch[n].hash);
    size = 0;
  }
  return raw;
}

void Bpe::use_raw_bytes() {
  byte_of_id_.assign(static_cast<std::size_t>(vocabulary_.id_end()), no_byte);
  for (unsigned byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = vocabulary_.find(byte_level_character(static_cast<unsigned char>(byte)));
    byte_of_id_[static_cast<std::size_t>(byte_ids_[byte])] = static_cast<std::uint16_t>(byte);
  }
  byte_merges_.resize(256 * 256);
  for (std::size_t left = 0; left < 256; ++left) {
    for (std::size_t right = 0; right < 256; ++right) {
      byte_merges_[left * 256 + right] = merges_.find(byte_ids_[left], byte_ids_[right]);
    }
  }
  may_cut_ = false;
}

// Cutting is safe where every character has its own id or falls back to bytes (so none vanishes and lets its
// neighbours meet) and no byte token takes part in a merge, which add_merges() watches.
void Bpe::expect_cuts() {
  may_cut_ = byte_fallback_ && !fallback_.empty() && !ignore_merges_ && prefix_.empty() && suffix_.empty();
  if (!may_cut_) return;
  neighbours_.assign(256 * 256, false);
  before_metaspace_.assign(256, false);
}

void Bpe::note_neighbours(std::string_view token) {
  for (std::size_t at = 1; at < token.size(); ++at) {
    const auto left = static_cast<unsigned char>(token[at - 1]);
    const auto right = static_cast<unsigned char>(token[at]);
    if ((right & 0xC0) == 0x80) continue;
    neighbours_[left * 256u + right] = true;
    if (token.substr(at).starts_with("\xE2\x96\x81")) before_metaspace_[left] = true;
  }
}

}  // namespace chorus
