#include <simdjson.h>

#include <array>

#include "json/utf8.h"
#include "text/bpe.h"
#include "text/unicode.h"

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

constexpr std::size_t kMergeBatch = 32;

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
  if (pair.at(0).get(parts.left) != simdjson::SUCCESS) return malformed();
  if (pair.at(1).get(parts.right) != simdjson::SUCCESS) return malformed();
  return parts;
}

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with('>');
}

std::string byte_token(unsigned byte) {
  return fmt::format("<0x{:02X}>", byte);
}

}  // namespace

Result<Bpe> Bpe::load(const dom::element& model, const BpeLimits& limits) {
  Bpe bpe;
  CHORUS_TRY_VOID(bpe.load_vocabulary(model, limits));
  CHORUS_TRY_VOID(bpe.load_options(model));
  CHORUS_TRY_VOID(bpe.load_merges(model, limits));
  bpe.memo_ = std::make_unique<std::atomic<Memo>[]>(static_cast<std::size_t>(bpe.vocabulary_.id_end()));
  bpe.find_cuts();
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
  if (id == StringTable::kNone) {
    return fail(ErrorCode::invalid_argument, "model.unk_token: \"{}\" is not in model.vocab", unknown);
  }
  unknown_ = id;
  return {};
}

Result<void> Bpe::load_vocabulary(const dom::element& model, const BpeLimits& limits) {
  dom::object vocabulary;
  if (model["vocab"].get(vocabulary) != simdjson::SUCCESS) {
    return fail(ErrorCode::invalid_argument, "model.vocab: must be an object of tokens and ids");
  }
  std::size_t count = 0, bytes = 0;
  for (const auto& [token, id] : vocabulary) {
    ++count;
    bytes += token.size();
  }
  if (count > limits.tokens_max || bytes >= std::size_t{1} << 31) {
    return fail(ErrorCode::invalid_argument, "model.vocab: {} tokens are over the limit of {}", count,
                limits.tokens_max);
  }
  vocabulary_.reserve(count, bytes);
  for (const auto& [token, value] : vocabulary) {
    std::uint64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS || id >= limits.tokens_max) {
      return fail(ErrorCode::invalid_argument, "model.vocab[\"{}\"]: the id must be a whole number from 0 to {}", token,
                  limits.tokens_max - 1);
    }
    if (vocabulary_.insert(token, static_cast<std::int32_t>(id))) continue;
    const bool twice = vocabulary_.find(token) != StringTable::kNone;
    if (twice) return fail(ErrorCode::invalid_argument, "model.vocab[\"{}\"]: the token is there twice", token);
    return fail(ErrorCode::invalid_argument, "model.vocab[\"{}\"]: id {} is also that of \"{}\"", token, id,
                vocabulary_.at(static_cast<std::int32_t>(id)));
  }
  byte_ids_.assign(256, StringTable::kNone);
  for (unsigned byte = 0; byte < 128; ++byte) {
    const char text = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary_.find({&text, 1});
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::int32_t id = vocabulary_.find(byte_token(byte));
    if (id == StringTable::kNone) {
      fallback_.clear();
      break;
    }
    fallback_.push_back(id);
  }
  return {};
}

Result<void> Bpe::load_merges(const dom::element& model, const BpeLimits& limits) {
  dom::array merges;
  if (model["merges"].get(merges) != simdjson::SUCCESS) {
    return fail(ErrorCode::invalid_argument, "model.merges: must be an array");
  }
  std::size_t count = 0;
  for ([[maybe_unused]] const dom::element entry : merges) ++count;
  if (count > limits.merges_max) {
    return fail(ErrorCode::invalid_argument, "model.merges: {} entries are over the limit of {}", count,
                limits.merges_max);
  }
  merges_.reserve(count);
  neighbours_.assign(256 * 256, false);
  before_metaspace_.assign(256, false);
  std::vector<MergeParts> batch;
  batch.reserve(kMergeBatch);
  std::size_t index = 0;
  for (const dom::element entry : merges) {
    CHORUS_TRY(const MergeParts parts, read_merge(entry, index + batch.size()));
    batch.push_back(parts);
    if (batch.size() < kMergeBatch) continue;
    CHORUS_TRY_VOID(add_merges(batch, index));
    index += batch.size();
    batch.clear();
  }
  return add_merges(batch, index);
}

// The look-ups of a batch run side by side: the tables are larger than the caches, and waiting for one entry after the
// other would take most of the loading time.
Result<void> Bpe::add_merges(std::span<const MergeParts> batch, std::size_t first_index) {
  struct Lookup {
    std::string_view token;
    std::uint64_t hash;
    std::int32_t id;
  };
  std::array<Lookup, kMergeBatch * 3> lookups;  // left, right, merged
  std::array<std::string, kMergeBatch> merged;
  for (std::size_t n = 0; n < batch.size(); ++n) {
    const auto [left, right] = batch[n];
    if (right.size() < prefix_.size()) {
      return fail(ErrorCode::invalid_argument, "model.merges[{}]: \"{}\" lacks the continuing_subword_prefix",
                  first_index + n, right);
    }
    merged[n].assign(left);
    merged[n] += right.substr(prefix_.size());
    const std::array<std::string_view, 3> tokens = {left, right, merged[n]};
    for (std::size_t k = 0; k < 3; ++k) {
      lookups[n * 3 + k] = {tokens[k], hash_bytes(tokens[k]), StringTable::kNone};
      vocabulary_.prefetch_slot(lookups[n * 3 + k].hash);
    }
  }
  const std::span<Lookup> used(lookups.data(), batch.size() * 3);
  for (const Lookup& lookup : used) vocabulary_.prefetch_string(lookup.hash);
  for (Lookup& lookup : used) {
    lookup.id = vocabulary_.find(lookup.token, lookup.hash);
    if (lookup.id != StringTable::kNone) continue;
    return fail(ErrorCode::invalid_argument, "model.merges[{}]: token \"{}\" is not in model.vocab",
                first_index + static_cast<std::size_t>(&lookup - used.data()) / 3, lookup.token);
  }
  for (std::size_t n = 0; n < batch.size(); ++n) merges_.prefetch(lookups[n * 3].id, lookups[n * 3 + 1].id);
  for (std::size_t n = 0; n < batch.size(); ++n) {
    const auto rank = static_cast<std::uint32_t>(first_index + n);
    merges_.set(lookups[n * 3].id, lookups[n * 3 + 1].id, {rank, lookups[n * 3 + 2].id});
    note_neighbours(merged[n]);
    byte_tokens_merge_ = byte_tokens_merge_ || is_byte_token(batch[n].left) || is_byte_token(batch[n].right);
  }
  return {};
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

// Cutting is safe where every character has an id of its own or falls back to bytes (so none vanishes and lets its
// neighbours meet) and no byte token takes part in a merge.
void Bpe::find_cuts() {
  may_cut_ = byte_fallback_ && !fallback_.empty() && !byte_tokens_merge_ && !ignore_merges_ && prefix_.empty() &&
             suffix_.empty();
}

}  // namespace chorus
