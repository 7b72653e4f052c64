#include "tokenizer/unigram.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tokenizer/unicode.h"

namespace chorus {
namespace {

namespace dom = simdjson::dom;

constexpr double unknown_penalty = 10;  // below the lowest score of a token

}  // namespace

Result<void> Unigram::load_vocabulary(const dom::element& model) {
  dom::array entries;
  if (model["vocab"].get(entries) != simdjson::SUCCESS) {
    return fail(ErrorCode::invalid_argument, "model.vocab: must be an array of [token, score]");
  }
  double lowest = std::numeric_limits<double>::infinity();
  for (const dom::element entry : entries) {
    const auto id = static_cast<std::int32_t>(scores_.size());
    if (scores_.size() >= tokens_max) {
      return fail(ErrorCode::invalid_argument, "model.vocab: more than {} tokens", tokens_max);
    }
    dom::array pair;
    std::string_view token;
    double score = 0;
    const bool is_pair = entry.get(pair) == simdjson::SUCCESS && pair.size() == 2 &&
                         pair.at(0).get(token) == simdjson::SUCCESS && pair.at(1).get(score) == simdjson::SUCCESS;
    if (!is_pair || !std::isfinite(score)) {
      return fail(ErrorCode::invalid_argument, "model.vocab[{}]: must be [token, score]", id);
    }
    if (token.size() > token_bytes_max) {
      return fail(ErrorCode::invalid_argument, "model.vocab[{}]: a token of {} bytes is over the limit of {}", id,
                  token.size(), token_bytes_max);
    }
    if (!vocabulary_.insert(token, id)) {
      return fail(ErrorCode::invalid_argument, "model.vocab[{}]: the token \"{}\" is there twice", id, token);
    }
    scores_.push_back(score);
    lowest = std::min(lowest, score);
  }
  if (scores_.empty()) return fail(ErrorCode::invalid_argument, "model.vocab: has no token");
  unknown_score_ = lowest - unknown_penalty;
  return {};
}

void Unigram::sort_tokens() {
  for (std::int32_t id = 0; id < vocabulary_.id_end(); ++id) {
    if (!vocabulary_.at(id).empty()) sorted_.push_back(id);
  }
  const auto first_byte = [&](std::int32_t id) { return static_cast<unsigned char>(vocabulary_.at(id)[0]); };
  std::ranges::sort(sorted_, {}, [&](std::int32_t id) { return vocabulary_.at(id); });
  std::size_t at = 0;
  for (unsigned byte = 0; byte <= 256; ++byte) {
    while (at < sorted_.size() && first_byte(sorted_[at]) < byte) ++at;
    begin_of_.push_back(static_cast<std::int32_t>(at));
  }
}

Result<Unigram> Unigram::load(const dom::element& model) {
  Unigram unigram;
  CHORUS_TRY_VOID(unigram.load_vocabulary(model));
  unigram.sort_tokens();
  dom::element value;
  if (model["unk_id"].get(value) == simdjson::SUCCESS && !value.is_null()) {
    std::uint64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS || id >= unigram.scores_.size()) {
      return fail(ErrorCode::invalid_argument, "model.unk_id: must be null or an id of model.vocab");
    }
    unigram.unknown_ = static_cast<std::int32_t>(id);
  }
  bool falls_back = false;
  if (model["byte_fallback"].get(value) == simdjson::SUCCESS && !value.is_null() &&
      value.get(falls_back) != simdjson::SUCCESS) {
    return fail(ErrorCode::invalid_argument, "model.byte_fallback: must be true or false");
  }
  for (unsigned byte = 0; falls_back && byte < 256; ++byte) {
    unigram.fallback_.push_back(unigram.vocabulary_.find(fmt::format("<0x{:02X}>", byte)));
  }
  if (std::ranges::find(unigram.fallback_, StringTable::none) != unigram.fallback_.end()) unigram.fallback_.clear();
  return unigram;
}

// All tokens that begin at `begin`: among the sorted ones those that agree in the first k bytes are a range, which each
// further byte makes narrower.
void Unigram::extend(std::string_view text, std::size_t begin, std::vector<Cut>& cuts) const {
  const double score = cuts[begin].score;
  const auto offer = [&](std::size_t end, std::int32_t id, double candidate) {
    Cut& cut = cuts[end];
    if (cut.begin < 0 || candidate > cut.score) cut = {candidate, id, static_cast<std::int32_t>(begin)};
  };
  const auto first = static_cast<unsigned char>(text[begin]);
  const std::size_t character = character_at(text, begin).size;
  auto low = sorted_.begin() + begin_of_[first], high = sorted_.begin() + begin_of_[first + 1U];
  bool has_character = false;
  for (std::size_t length = 1; low != high; ++length) {
    if (vocabulary_.at(*low).size() == length) {
      offer(begin + length, *low, score + scores_[static_cast<std::size_t>(*low)]);
      has_character |= length == character;
      ++low;
    }
    if (begin + length >= text.size()) break;
    const auto byte_of = [&](std::int32_t id) { return static_cast<unsigned char>(vocabulary_.at(id)[length]); };
    const auto byte = static_cast<unsigned char>(text[begin + length]);
    low = std::partition_point(low, high, [&](std::int32_t id) { return byte_of(id) < byte; });
    high = std::partition_point(low, high, [&](std::int32_t id) { return byte_of(id) == byte; });
  }
  if (!has_character) offer(begin + character, unknown_.value_or(StringTable::none), score + unknown_score_);
}

void Unigram::add_unknown(std::string_view text, std::vector<std::int32_t>& ids) const {
  if (!fallback_.empty()) {
    for (const char byte : text) ids.push_back(fallback_[static_cast<unsigned char>(byte)]);
  } else if (unknown_) {
    ids.push_back(*unknown_);
  }
}

void Unigram::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (piece.empty()) return;
  std::vector<Cut> cuts(piece.size() + 1);
  cuts[0].begin = 0;
  for (std::size_t at = 0; at < piece.size(); at += character_at(piece, at).size) extend(piece, at, cuts);
  struct Part {
    std::size_t begin, end;
    std::int32_t id;
  };
  std::vector<Part> parts;  // from the last to the first; unknown ones side by side are one
  for (std::size_t end = piece.size(); end > 0;) {
    const Cut& cut = cuts[end];
    const auto begin = static_cast<std::size_t>(cut.begin);
    const bool is_unknown = cut.id == StringTable::none || cut.id == unknown_;
    if (is_unknown && !parts.empty() && parts.back().id == StringTable::none) {
      parts.back().begin = begin;
    } else {
      parts.push_back({begin, end, is_unknown ? StringTable::none : cut.id});
    }
    end = begin;
  }
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    const std::string_view text = piece.substr(part->begin, part->end - part->begin);
    if (part->id != StringTable::none) {
      ids.push_back(part->id);
    } else if (const std::int32_t whole = vocabulary_.find(text); whole != StringTable::none) {
      ids.push_back(whole);  // several unknown characters that together are a token
    } else {
      add_unknown(text, ids);
    }
  }
}

}  // namespace chorus
