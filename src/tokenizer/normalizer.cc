#include "tokenizer/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <algorithm>
#include <vector>

#include "json/utf8.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/pattern.h"
#include "tokenizer/precompiled.h"
#include "tokenizer/unicode.h"

namespace chorus {
namespace {

using Loaded = Result<std::unique_ptr<const Normalizer>>;

// What a normalizer may make of a text: NFKD's longest gives eleven bytes for one.
constexpr std::size_t growth_max = 16;
constexpr std::size_t growth_bytes_min = 64 << 10;  // a short text may grow by more
constexpr std::size_t text_bytes_max = std::size_t{1} << 30;

std::size_t bytes_max_of(std::string_view text) {
  return std::min(text.size() * growth_max + growth_bytes_min, text_bytes_max);
}

Error too_long(std::size_t bytes_max) {
  return fail(ErrorCode::resource_exhausted, "a step makes more than {} bytes of a text", bytes_max);
}

class SequenceNormalizer : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<std::unique_ptr<const Normalizer>> parts) : parts_(std::move(parts)) {}
  Result<void> normalize(std::string& text) const override {
    const std::size_t bytes_max = bytes_max_of(text);  // of the whole sequence
    for (const auto& part : parts_) {
      CHORUS_TRY_VOID(part->normalize(text));
      if (text.size() > bytes_max) return too_long(bytes_max);
    }
    return {};
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> parts_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  Result<void> normalize(std::string& text) const override {
    if (text.empty()) return {};
    if (text.size() + prefix_.size() > bytes_max_of(text)) return too_long(bytes_max_of(text));
    text.insert(0, prefix_);
    return {};
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Result<void> normalize(std::string& text) const override {
    CHORUS_TRY(text, replace_all(text, pattern_, content_, bytes_max_of(text)));
    return {};
  }

 private:
  Pattern pattern_;
  std::string content_;
};

class UnicodeForm : public Normalizer {
 public:
  explicit UnicodeForm(const icu::Normalizer2* form) : form_(form) {}
  Result<void> normalize(std::string& text) const override {
    const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
    if (std::all_of(text.begin(), text.end(), is_ascii)) return {};
    const icu::StringPiece input(text.data(), static_cast<std::int32_t>(text.size()));
    UErrorCode code = U_ZERO_ERROR;
    if (form_->isNormalizedUTF8(input, code) && U_SUCCESS(code)) return {};
    std::string out;
    icu::StringByteSink<std::string> sink(&out, static_cast<std::int32_t>(text.size()));
    code = U_ZERO_ERROR;
    form_->normalizeUTF8(0, input, sink, nullptr, code);
    if (U_FAILURE(code)) return fail(ErrorCode::internal, "Unicode normalization: {}", u_errorName(code));
    text = std::move(out);
    return {};
  }

 private:
  const icu::Normalizer2* form_;  // owned by ICU, immutable
};

// Character by character, without context: the reference gives a final sigma no form of its own.
class Lowercase : public Normalizer {
 public:
  Result<void> normalize(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
      const Character character = character_at(text, at);
      if (character.code_point == 0x130) {
        out += "i\xCC\x87";  // the one character whose lower case is two: i and a dot above
      } else {
        append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(character.code_point))));
      }
      at += character.size;
    }
    text = std::move(out);
    return {};
  }
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Result<void> normalize(std::string& text) const override {
    std::size_t begin = 0, end = text.size();
    while (left_ && begin < end) {
      const Character character = character_at(text, begin);
      if (!is_white_space(character.code_point)) break;
      begin += character.size;
    }
    while (right_ && end > begin) {
      const Character character = character_before(text, end);
      if (!is_white_space(character.code_point)) break;
      end -= character.size;
    }
    text = text.substr(begin, end - begin);
    return {};
  }

 private:
  bool left_, right_;
};

class StripAccents : public Normalizer {
 public:
  Result<void> normalize(std::string& text) const override {
    CHORUS_TRY(text, replace_all(text, Pattern::from_rule(is_mark), "", text.size()));
    return {};
  }
};

class ByteLevelNormalizer : public Normalizer {
 public:
  Result<void> normalize(std::string& text) const override {
    text = to_byte_level(text);
    return {};
  }
};

template <typename T, typename... Args>
Loaded make(Args&&... args) {
  return std::unique_ptr<const Normalizer>(std::make_unique<const T>(std::forward<Args>(args)...));
}

Loaded load(const Json& config, PipelineSteps& steps, int nesting);

Loaded load_sequence(const Json& config, PipelineSteps& steps, int nesting) {
  CHORUS_TRY(const Json* const list, read_array(config, "normalizers"));
  std::vector<std::unique_ptr<const Normalizer>> parts;
  for (const Json& entry : *list) {
    CHORUS_TRY(auto part, load(entry, steps, nesting + 1));
    if (part != nullptr) parts.push_back(std::move(part));
  }
  return make<SequenceNormalizer>(std::move(parts));
}

Loaded load_unicode_form(std::string_view type) {
  UErrorCode code = U_ZERO_ERROR;
  const icu::Normalizer2* const form = type == "NFC"    ? icu::Normalizer2::getNFCInstance(code)
                                       : type == "NFD"  ? icu::Normalizer2::getNFDInstance(code)
                                       : type == "NFKC" ? icu::Normalizer2::getNFKCInstance(code)
                                                        : icu::Normalizer2::getNFKDInstance(code);
  if (U_FAILURE(code)) return fail(ErrorCode::internal, "{}: ICU has no data for it: {}", type, u_errorName(code));
  return make<UnicodeForm>(form);
}

Loaded load(const Json& config, PipelineSteps& steps, int nesting) {
  if (config.is_null()) return std::unique_ptr<const Normalizer>();
  CHORUS_TRY_VOID(steps.take(nesting));
  CHORUS_TRY(const std::string type, read_string(config, "type"));
  if (type == "Sequence") return load_sequence(config, steps, nesting);
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") return load_unicode_form(type);
  if (type == "Lowercase") return make<Lowercase>();
  if (type == "StripAccents") return make<StripAccents>();
  if (type == "ByteLevel") return make<ByteLevelNormalizer>();
  if (type == "Precompiled") {
    CHORUS_TRY(const std::string table, read_string(config, "precompiled_charsmap"));
    return load_precompiled(table);
  }
  if (type == "Prepend") {
    CHORUS_TRY(std::string prefix, read_string(config, "prepend"));
    return make<Prepend>(std::move(prefix));
  }
  if (type == "Replace") {
    CHORUS_TRY(Pattern pattern, Pattern::load(config));
    CHORUS_TRY(std::string content, read_string(config, "content"));
    return make<Replace>(std::move(pattern), std::move(content));
  }
  if (type == "Strip") {
    CHORUS_TRY(const bool left, read_bool(config, "strip_left", true));
    CHORUS_TRY(const bool right, read_bool(config, "strip_right", true));
    return make<Strip>(left, right);
  }
  return fail(ErrorCode::invalid_argument, "type \"{}\" is not supported", type);
}

}  // namespace

Result<std::unique_ptr<const Normalizer>> load_normalizer(const Json& config) {
  PipelineSteps steps;
  return load(config, steps, 0);
}

}  // namespace chorus
