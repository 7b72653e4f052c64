// Text to token ids and back, from a Hugging Face tokenizer.json (BPE, byte-level and SentencePiece-style with byte
// fallback; Unigram). Exact: the same ids and text as the `tokenizers` package for every input, invalid UTF-8 aside (which is
// refused here).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chorus {

// Decodes one sequence token by token. Not thread-safe; keeps a reference to its tokenizer's tables.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  // Before the first push(): the sequence begins with `tokens`, whose text is not wanted. Looks at no more of them than
  // what follows depends on. A character that they leave incomplete comes with what follows; a byte run that is text
  // where they end is theirs.
  virtual void begin_after(std::span<const std::int32_t> tokens) = 0;
  // Takes the next token (an id that the tokenizer does not know adds no text) and appends to `settled` what no later
  // token can change: a character that is not complete is kept back, and so is a run of SentencePiece byte tokens,
  // because one wrong byte turns the whole run into U+FFFD.
  virtual void push(std::int32_t token, std::string& settled) = 0;
  // What is kept back but would be text if the sequence ended here: a byte run that is UTF-8 so far. Else empty.
  virtual std::string_view tentative() const = 0;
  // The sequence ends: appends the rest, incomplete characters as U+FFFD.
  virtual void finish(std::string& settled) = 0;
};

// Immutable after load: any number of threads may encode and decode with one.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Fails on invalid UTF-8 (says at which byte). `add_special_tokens`: run the post-processor (BOS, EOS, templates).
  virtual Result<std::vector<std::int32_t>> encode(std::string_view text, bool add_special_tokens) const = 0;
  // Ids outside the vocabulary are an error that names the id and the limit. Incomplete UTF-8 becomes U+FFFD as in the
  // reference.
  virtual Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const = 0;
  // The same, a token at a time: all that push() and finish() append is decode() of the tokens.
  virtual std::unique_ptr<TokenStream> start_decoding(bool skip_special_tokens) const = 0;
  virtual std::int32_t vocab_size() const = 0;  // highest id + 1, added tokens included
  virtual std::optional<std::int32_t> token_to_id(std::string_view token) const = 0;
  // The token's own spelling in the vocabulary ("Ġthe"), nullopt if the id is unknown.
  virtual std::optional<std::string> id_to_token(std::int32_t id) const = 0;
  virtual bool is_special(std::int32_t id) const = 0;
};

struct TokenizerLimits {
  std::size_t file_bytes_max = 256u << 20;
  std::size_t added_tokens_max = 1u << 17;
  std::size_t text_bytes_max = 1u << 30;  // of one encode()
};

// Reads DIRECTORY/tokenizer.json and adds the tokens that the other files of the folder name
// (tokenizer/folder_tokens.h). "truncation" and "padding" are not applied. Errors name the file, the part (normalizer,
// pre_tokenizer, ...) and its type.
Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const std::string& directory,
                                                        const TokenizerLimits& limits = {});

// Turns one choice's tokens into text as they come.
//  - The text handed out so far only grows and never ends inside a UTF-8 character: half a character is held back.
//  - Stop strings are found across token borders, as soon as the last token that they need is there; the text ends
//    before the stop string (or after it with `include_stop_in_output`), and text that may be the beginning of one is
//    held back until it is known. Of several the one that is complete first counts, of those that end together the
//    longest.
//  - decode(prompt) + all text handed out == decode(prompt + outputs), cut at the first stop string, when the prompt
//    does not end inside a character. So the leading space of a first output token stays, as in vLLM. Only the prompt's
//    beginning and end are looked at.
class Detokenizer {
 public:
  struct Options {
    std::vector<std::string> stop;
    bool include_stop_in_output = false;
    bool skip_special_tokens = true;
    std::uint32_t min_tokens = 0;  // as in vLLM: no stop string is looked for in the text of these first tokens
  };
  Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::int32_t> prompt, Options options);
  // Takes the next token. Returns the newly settled text; `stopped()` tells whether a stop string was completed by it
  // (tokens after that are ignored).
  std::string push(std::int32_t token);
  // No more tokens: what was held back.
  std::string finish();
  bool stopped() const;
  const std::string& stop_string() const;  // the one that matched; empty if none

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace chorus
