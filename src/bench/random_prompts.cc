#include "bench/random_prompts.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/philox.h"
#include "bench/workload.h"
#include "json/json.h"

namespace chorus {
namespace {

constexpr std::uint64_t length_stream = 0x6c656e, block_seed = 0x626c6f636b;  // beside the tokens' own numbers
constexpr std::uint64_t prefix_number = ~std::uint64_t{0};

constexpr const char* common_words =
    "the of and a to in he have it that for they with as not on she at by this we you do but from or which one would "
    "all will there say who make when can more if no man out other so what time up go about than into could state only "
    "new year some take come these know see use get like then first any work now may such give over think most even "
    "find day also after way many must look before great back through long where much should well people down own just "
    "because good each those feel seem how high too place little world very still nation hand old life tell write "
    "become here show house both between need mean call develop under last right move thing general school never same "
    "another begin while number part turn real leave might want point form off child few small since against ask late "
    "home interest large person end open public follow during present without again hold govern around possible head "
    "consider word program problem however lead system set order eye plan run keep face fact group play stand increase "
    "early course change help line Monday Tuesday Once upon a time there was a little girl named Lily 0 1 2 3 4 5 6 7 "
    "8 9 A B C D E F G H I J K L M N O P Q R S T U V W X Y Z b c d f g j k l m n p q r s t u v w x y z . , ; : ! ? ( )";

struct Lengths {
  int low = 0, high = 0;
  int at(double uniform) const { return low + static_cast<int>(uniform * (high - low + 1)); }
};

Lengths lengths_around(int middle, double ratio) {
  return {static_cast<int>(std::floor(middle * (1 - ratio))), static_cast<int>(std::ceil(middle * (1 + ratio)))};
}

struct Ratios {
  double input = 0, output = 0;
};

Result<Ratios> parse_ratios(const std::string& text) {
  const auto is_ratio = [](const Json& value) { return value.is_number() && value >= 0 && value < 1; };
  const Result<Json> value = parse_json(text);
  if (value.ok() && is_ratio(*value)) return Ratios{*value, *value};
  const bool has_both = value.ok() && value->is_object() && value->contains("input") && value->contains("output");
  if (has_both && is_ratio((*value)["input"]) && is_ratio((*value)["output"])) {
    return Ratios{(*value)["input"], (*value)["output"]};
  }
  return fail(ErrorCode::invalid_argument,
              "--random-range-ratio {}: give a number from 0 to below 1, or {{\"input\": X, \"output\": Y}}", text);
}

}  // namespace

Result<RandomTokens> RandomTokens::of(const ServeTokenizer& tokenizer, std::uint64_t seed) {
  CHORUS_TRY(std::vector<TokenId> pool, tokenizer.tokenize(common_words, false));
  std::ranges::sort(pool);
  pool.erase(std::unique(pool.begin(), pool.end()), pool.end());
  if (pool.empty()) return fail(ErrorCode::unavailable, "the server's /tokenize gives no tokens for a text of words");
  return RandomTokens(std::move(pool), seed);
}

void RandomTokens::append(std::uint64_t number, int count, std::vector<TokenId>* ids) const {
  append_from(seed_, number, count, ids);
}

void RandomTokens::append_block(std::uint64_t hash, int count, std::vector<TokenId>* ids) const {
  append_from(seed_ ^ block_seed, hash, count, ids);
}

void RandomTokens::append_from(std::uint64_t seed, std::uint64_t number, int count, std::vector<TokenId>* ids) const {
  const auto stream = static_cast<std::uint32_t>(number ^ number >> 32);
  for (int i = 0; i < count; ++i) {
    const double uniform = philox_uniform(seed ^ number, stream, static_cast<std::uint64_t>(i));
    ids->push_back(pool_[static_cast<std::size_t>(uniform * static_cast<double>(pool_.size()))]);
  }
}

Result<std::vector<ServePrompt>> random_prompts(const DatasetOptions& options, const ServeTokenizer& tokenizer) {
  CHORUS_TRY_VOID(check_at_least("--num-prompts", options.num_prompts, 1));
  CHORUS_TRY_VOID(check_between("--random-input-len", options.random_input_len, 0, length_max));
  CHORUS_TRY_VOID(check_between("--random-output-len", options.random_output_len, 1, length_max));
  CHORUS_TRY_VOID(check_between("--random-prefix-len", options.random_prefix_len, 0, length_max));
  CHORUS_TRY(const Ratios ratios, parse_ratios(options.random_range_ratio));
  const Lengths inputs = lengths_around(options.random_input_len, ratios.input);
  Lengths outputs = lengths_around(options.random_output_len, ratios.output);
  outputs.low = std::max(outputs.low, 1);
  CHORUS_TRY_VOID(check_at_least("the shortest prompt (--random-input-len, --random-prefix-len)",
                                 inputs.low + options.random_prefix_len, 1));
  CHORUS_TRY(const RandomTokens tokens, RandomTokens::of(tokenizer, options.seed));
  std::vector<ServePrompt> prompts(static_cast<std::size_t>(options.num_prompts));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    ServePrompt& prompt = prompts[i];
    const int length = inputs.at(philox_uniform(options.seed ^ length_stream, 0, i));
    prompt.output_len = outputs.at(philox_uniform(options.seed ^ length_stream, 1, i));
    tokens.append(prefix_number, options.random_prefix_len, &prompt.ids);
    tokens.append(i, length, &prompt.ids);
    prompt.tokens = prompt.ids.size();
    if (!options.as_text) continue;
    CHORUS_TRY(prompt.text, tokenizer.detokenize(prompt.ids));
    prompt.ids.clear();
  }
  return prompts;
}

}  // namespace chorus
