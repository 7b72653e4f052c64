// The prompts of a serving benchmark, under vLLM's names (0.33, benchmarks/datasets).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "json/json.h"
#include "request/request.h"

namespace chorus {

// The server's own tokenizer, so that the client needs no file of the model.
struct ServeTokenizer {
  std::function<Result<std::vector<TokenId>>(const std::string& text, bool add_special_tokens)> tokenize;
  std::function<Result<std::string>(const std::vector<TokenId>& ids)> detokenize;
};

struct DatasetOptions {
  std::string name = "random", path;
  int num_prompts = 1000;  // at most; those of a file that has fewer are drawn again, but of a trace; 0: all of a file
  std::uint64_t seed = 0;
  bool oversample = true, shuffle = true;
  bool as_text = false;  // for chats: prompts are texts in place of token ids
  int random_input_len = 1024, random_output_len = 128, random_prefix_len = 0;
  std::string random_range_ratio = "0";    // a number, or {"input": .., "output": ..}
  std::optional<int> sharegpt_output_len;  // else the answer's length in the file
  int custom_output_len = 256;             // -1: each row's own "output_tokens"
  int trace_chunk = 16;                    // tokens that a hash id stands for
  double trace_seconds = 1;                // that one unit of a timestamp is
  std::string trace_timestamp = "timestamp", trace_input = "input_length", trace_output = "output_length",
              trace_hashes = "hash_ids";
};

struct ServePrompt {
  std::string text;          // or
  std::vector<TokenId> ids;  // without special tokens
  std::uint64_t tokens = 0;  // as far as it is known
  int output_len = 0;
  double at_s = 0;  // of a trace
};

inline constexpr int length_max = 1 << 24;  // tokens of a prompt or an answer, by an option or by a file
inline constexpr std::size_t dataset_bytes_max = std::size_t{1} << 30;
inline constexpr const char* dataset_names = "random, sharegpt, custom, timed_trace";

// The member of a file's row as a length from 1 to length_max; none if it is something else.
std::optional<int> length_in(const Json& row, const std::string& name);

// The prompts in order. invalid_argument: an option, or the file, whose line is named; else the tokenizer's errors.
// * random: ids without structure, lengths even in [len * (1 - ratio), len * (1 + ratio)], behind one common prefix.
// * sharegpt: JSON; the first turn of each conversation of two or more, the second gives the output's length.
// * custom: JSON lines {"prompt", "output_tokens"?}.
// * timed_trace: JSON lines {"timestamp", "input_length", "output_length", "hash_ids"?}, where equal hashes are equal
//   tokens; or the Azure trace's CSV TIMESTAMP,ContextTokens,GeneratedTokens, whose times count from the earliest.
Result<std::vector<ServePrompt>> load_dataset(const DatasetOptions& options, const ServeTokenizer& tokenizer);

}  // namespace chorus
