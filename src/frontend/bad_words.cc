#include "frontend/bad_words.h"

#include <utility>

#include "jinja/text.h"

namespace chorus {
namespace {

constexpr std::size_t tokens_max = 1024;  // vLLM's, of all runs together

}  // namespace

Result<std::vector<std::vector<TokenId>>> bad_word_runs(const std::vector<std::string>& texts,
                                                        const Tokenizer& tokenizer) {
  std::vector<std::vector<TokenId>> runs;
  std::size_t tokens = 0;
  for (const std::string& text : texts) {
    const std::string word(jinja::strip_left(text));
    CHORUS_TRY(std::vector<TokenId> at_begin, tokenizer.encode(word, false));
    CHORUS_TRY(std::vector<TokenId> behind_space, tokenizer.encode(" " + word, false));
    if (word.empty() || at_begin.empty()) {
      return fail(ErrorCode::invalid_argument, "bad_words has \"{}\", which is no word: leave it out", text);
    }
    const bool differs = behind_space.size() == at_begin.size() && behind_space.front() != at_begin.front();
    tokens += at_begin.size() * (differs ? 2 : 1);
    if (tokens > tokens_max) {
      return fail(ErrorCode::invalid_argument, "bad_words have more than {} tokens: give fewer or shorter ones",
                  tokens_max);
    }
    runs.push_back(std::move(at_begin));
    if (differs) runs.push_back(std::move(behind_space));
  }
  return runs;
}

}  // namespace chorus
