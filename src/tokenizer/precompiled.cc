#include "tokenizer/precompiled.h"

#include <unicode/brkiter.h>
#include <unicode/utext.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/unicode.h"

namespace chorus {
namespace {

std::optional<std::string> decode_base64(std::string_view text) {
  std::string out;
  out.reserve(text.size() / 4 * 3);
  std::uint32_t bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char letter : text) {
    constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::size_t value = letters.find(letter);
    if (value == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out.push_back(static_cast<char>(bits >> count & 0xff));
  }
  return out;
}

// A unit of darts-clone's double array.
struct Unit {
  std::uint32_t bits = 0;
  bool has_leaf() const { return (bits >> 8 & 1U) != 0; }
  std::uint32_t value() const { return bits & 0x7fffffffU; }
  std::uint32_t label() const { return bits & 0x800000ffU; }
  std::uint32_t offset() const { return bits >> 10 << ((bits & 0x200U) >> 6); }
};

class Precompiled : public Normalizer {
 public:
  Precompiled(std::vector<Unit> trie, std::string texts, std::unique_ptr<const icu::BreakIterator> clusters)
      : trie_(std::move(trie)), texts_(std::move(texts)), clusters_(std::move(clusters)) {}

  Result<void> normalize(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    const auto is_plain = [](char c) { return static_cast<unsigned char>(c) < 0x80 && c != '\r'; };
    if (std::ranges::all_of(text, is_plain)) {  // then each character is a cluster of its own
      for (std::size_t at = 0; at < text.size(); ++at) replace(std::string_view(text).substr(at, 1), out);
    } else {
      CHORUS_TRY_VOID(for_each_cluster(text, [&](std::string_view cluster) { replace(cluster, out); }));
    }
    text = std::move(out);
    return {};
  }

 private:
  // A short cluster is replaced as one if the table has it, else its characters are. The package looks for the
  // shortest beginning that the table has, and takes its text for all of the cluster.
  void replace(std::string_view cluster, std::string& out) const {
    constexpr std::size_t short_bytes = 6;
    if (cluster.size() < short_bytes) {
      if (const auto text = find(cluster)) {
        out += *text;
        return;
      }
    }
    for (std::size_t at = 0; at < cluster.size();) {
      const std::string_view character = cluster.substr(at, character_at(cluster, at).size);
      out += find(character).value_or(character);
      at += character.size();
    }
  }

  std::optional<std::string_view> find(std::string_view key) const {
    std::size_t at = trie_[0].offset();
    for (const char letter : key) {
      const auto byte = static_cast<unsigned char>(letter);
      at ^= byte;
      if (byte == 0 || at >= trie_.size() || trie_[at].label() != byte) return std::nullopt;
      const Unit unit = trie_[at];
      at ^= unit.offset();
      if (!unit.has_leaf()) continue;
      if (at >= trie_.size() || trie_[at].value() > texts_.size()) return std::nullopt;
      const std::size_t begin = trie_[at].value();
      return std::string_view(texts_).substr(begin, std::min(texts_.find('\0', begin), texts_.size()) - begin);
    }
    return std::nullopt;
  }

  template <typename F>
  Result<void> for_each_cluster(std::string_view text, const F& f) const {
    UErrorCode code = U_ZERO_ERROR;
    const std::unique_ptr<icu::BreakIterator> clusters(clusters_->clone());  // it has a place in a text
    UText* const whole = utext_openUTF8(nullptr, text.data(), static_cast<std::int64_t>(text.size()), &code);
    if (clusters == nullptr || U_FAILURE(code)) return fail(ErrorCode::internal, "Precompiled: {}", u_errorName(code));
    clusters->setText(whole, code);
    std::int32_t begin = clusters->first();
    for (std::int32_t end = clusters->next(); end != icu::BreakIterator::DONE; begin = end, end = clusters->next()) {
      f(text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
    }
    utext_close(whole);
    if (U_FAILURE(code)) return fail(ErrorCode::internal, "Precompiled: {}", u_errorName(code));
    return {};
  }

  std::vector<Unit> trie_;
  std::string texts_;
  std::unique_ptr<const icu::BreakIterator> clusters_;
};

}  // namespace

Result<std::unique_ptr<const Normalizer>> load_precompiled(std::string_view base64) {
  const auto table = decode_base64(base64);
  std::uint32_t bytes = 0;
  if (table && table->size() >= sizeof bytes) std::memcpy(&bytes, table->data(), sizeof bytes);
  if (!table || bytes < sizeof(Unit) || bytes % sizeof(Unit) != 0 || bytes > table->size() - sizeof bytes) {
    return fail(ErrorCode::invalid_argument, "precompiled_charsmap: must be a table of SentencePiece in base64");
  }
  std::vector<Unit> trie(bytes / sizeof(Unit));
  std::memcpy(trie.data(), table->data() + sizeof bytes, bytes);
  UErrorCode code = U_ZERO_ERROR;
  std::unique_ptr<const icu::BreakIterator> clusters(
      icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), code));
  if (U_FAILURE(code)) return fail(ErrorCode::internal, "Precompiled: ICU has no data for it: {}", u_errorName(code));
  return std::unique_ptr<const Normalizer>(
      std::make_unique<const Precompiled>(std::move(trie), table->substr(sizeof bytes + bytes), std::move(clusters)));
}

}  // namespace chorus
