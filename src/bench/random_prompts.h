// Prompts of random tokens that the server knows. Pure, but for the server that is asked which those are.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "bench/serve_dataset.h"

namespace chorus {

// Random ones of the ids that the server gives for a text of common words: ordinary tokens of any model.
class RandomTokens {
 public:
  static Result<RandomTokens> of(const ServeTokenizer& tokenizer, std::uint64_t seed);
  // Equal (seed, number) are equal tokens.
  void append(std::uint64_t number, int count, std::vector<TokenId>* ids) const;
  // The same of a trace's hash, which shares no number with append()'s.
  void append_block(std::uint64_t hash, int count, std::vector<TokenId>* ids) const;

 private:
  RandomTokens(std::vector<TokenId> pool, std::uint64_t seed) : pool_(std::move(pool)), seed_(seed) {}
  void append_from(std::uint64_t seed, std::uint64_t number, int count, std::vector<TokenId>* ids) const;

  std::vector<TokenId> pool_;
  std::uint64_t seed_;
};

Result<std::vector<ServePrompt>> random_prompts(const DatasetOptions& options, const ServeTokenizer& tokenizer);

}  // namespace chorus
