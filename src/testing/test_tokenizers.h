// The tokenizers of tests/data, each loaded once per test program.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/check.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

inline constexpr const char* test_tokenizer_names[] = {"deepseek-coder", "gpt-2",         "llama-2",    "llama-3",
                                                       "unigram",        "unigram-bytes", "mistral-v3", "phi-2",
                                                       "qwen2",          "stories260k"};

inline std::string test_tokenizer_folder(const std::string& name) {
  return std::string(CHORUS_TEST_DATA) + "/tokenizers/" + name;
}

inline std::shared_ptr<const Tokenizer> shared_test_tokenizer(const std::string& name) {
  static std::map<std::string, std::shared_ptr<const Tokenizer>> loaded;
  auto& tokenizer = loaded[name];
  if (tokenizer == nullptr) {
    auto result = load_tokenizer(test_tokenizer_folder(name));
    CHECK(result.ok(), "{}", result.error().message);
    tokenizer = *result;
  }
  return tokenizer;
}

inline const Tokenizer& test_tokenizer(const std::string& name) {
  return *shared_test_tokenizer(name);
}

}  // namespace chorus
