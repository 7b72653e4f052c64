// The "pre_tokenizer" part of tokenizer.json: cuts text into the pieces that the model sees one by one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

struct Piece {
  std::string_view text;
  bool at_start = false;  // it begins where the caller's text begins (Metaspace's "first")
};

// Takes pieces one after another; a piece is only valid during the call.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual void take(const Piece& piece) = 0;
  // The first error is kept; pieces after it do not matter.
  virtual void refuse(Error error) = 0;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Hands the pieces of `piece` to `sink`, none of them empty. Thread-safe.
  virtual void split(const Piece& piece, PieceSink& sink) const = 0;
};

struct PreTokenizerOptions {
  // The model takes raw bytes: where the last step would write bytes as byte-level characters, leave them.
  bool raw_bytes = false;
};

// `config`: the JSON value; null gives nullptr. An unknown type is an error that names it.
Result<std::unique_ptr<const PreTokenizer>> load_pre_tokenizer(const Json& config, const PreTokenizerOptions& options);

// Whether the last step is ByteLevel, so that `raw_bytes` is possible.
bool ends_in_byte_level(const Json& config);

}  // namespace chorus
