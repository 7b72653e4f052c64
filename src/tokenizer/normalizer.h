// The "normalizer" part of tokenizer.json: text in, text out, before anything is split.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Replaces `text` by its normal form. Thread-safe.
  virtual Result<void> normalize(std::string& text) const = 0;
};

// `config`: the JSON value; null gives nullptr. An unknown type is an error that names it.
Result<std::unique_ptr<const Normalizer>> load_normalizer(const Json& config);

}  // namespace chorus
