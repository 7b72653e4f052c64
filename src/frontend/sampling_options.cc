#include "frontend/sampling_options.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "config/engine_config.h"

namespace chorus {
namespace {

constexpr std::size_t stop_strings_max = 64;
constexpr std::size_t stop_string_bytes_max = 4096;
constexpr std::int64_t token_count_max = 1 << 24;
constexpr std::size_t bad_words_max = 128;  // vLLM's
constexpr std::size_t logprob_token_ids_max = 1024;
constexpr std::size_t cache_salt_bytes_max = 1024;  // vLLM's

Error bad_value(const char* name, const Json& value, const std::string& accepted) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return fail(ErrorCode::invalid_argument, "{} is {}: give {}", name, text, accepted);
}

Result<double> number(const char* name, const Json& value, double low, double high) {
  const double number = value.is_number() ? value.get<double>() : NAN;
  if (number >= low && number <= high) return number;
  return bad_value(name, value, fmt::format("a number from {} to {}", low, high));
}

// 5.0 is 5: Python and JavaScript write whole numbers so.
Json as_whole(const Json& value) {
  constexpr double exact_max = 9007199254740992;  // 2^53: above it doubles are no count any more
  if (!value.is_number_float()) return value;
  const double number = value.get<double>();
  const bool whole = std::abs(number) <= exact_max && number == std::floor(number);
  return whole ? Json(static_cast<std::int64_t>(number)) : value;
}

Result<std::int64_t> integer(const char* name, const Json& given, std::int64_t low, std::int64_t high) {
  if (given.is_number_float()) {
    const Json whole = as_whole(given);
    if (!whole.is_number_float()) return integer(name, whole, low, high);
  }
  const bool fits = given.is_number_integer() &&
                    (!given.is_number_unsigned() || given.get<std::uint64_t>() <= static_cast<std::uint64_t>(high));
  const auto whole = fits ? given.get<std::int64_t>() : low - 1;
  if (whole >= low && whole <= high) return whole;
  return bad_value(name, given, fmt::format("a whole number from {} to {}", low, high));
}

Result<bool> flag(const char* name, const Json& value) {
  if (!value.is_boolean()) return bad_value(name, value, "true or false");
  return value.get<bool>();
}

template <typename T>
Result<void> set_number(T* field, const char* name, const Json& value, double low, double high) {
  CHORUS_TRY(*field, number(name, value, low, high));
  return {};
}

template <typename T>
Result<void> set_integer(T* field, const char* name, const Json& value, std::int64_t low, std::int64_t high) {
  CHORUS_TRY(const std::int64_t whole, integer(name, value, low, high));
  *field = static_cast<T>(whole);
  return {};
}

Result<void> set_logprobs(std::optional<std::uint32_t>* field, const char* name, const Json& value) {
  CHORUS_TRY(const std::int64_t count, integer(name, value, 0, 1000));
  *field = static_cast<std::uint32_t>(count);
  return {};
}

Result<void> set_seed(GenerationOptions* options, const Json& given) {
  const Json value = as_whole(given);
  if (!value.is_number_integer()) return bad_value("seed", value, "a whole number of 64 bits");
  options->seed =
      value.is_number_unsigned() ? value.get<std::uint64_t>() : static_cast<std::uint64_t>(value.get<std::int64_t>());
  return {};
}

Result<std::vector<std::string>> texts(const char* name, const Json& value, std::size_t count_max) {
  std::vector<std::string> read;
  const Json list = value.is_string() ? Json::array({value}) : value;
  const std::string accepted =
      fmt::format("a string or a list of at most {} strings of 1 to {} bytes", count_max, stop_string_bytes_max);
  if (!list.is_array() || list.size() > count_max) return bad_value(name, value, accepted);
  for (const Json& entry : list) {
    if (!entry.is_string()) return bad_value(name, value, accepted);
    auto text = entry.get<std::string>();
    if (text.empty() || text.size() > stop_string_bytes_max) return bad_value(name, value, accepted);
    read.push_back(std::move(text));
  }
  return read;
}

Result<void> set_stop(GenerationOptions* options, const Json& value) {
  CHORUS_TRY(options->stop, texts("stop", value, stop_strings_max));
  return {};
}

Result<void> set_bad_words(GenerationOptions* options, const Json& value) {
  CHORUS_TRY(options->bad_words, texts("bad_words", value, bad_words_max));
  return {};
}

Result<std::vector<TokenId>> token_ids(const char* name, const Json& value, std::size_t count_max) {
  std::vector<TokenId> ids;
  const Json list = value.is_number() ? Json::array({value}) : value;
  if (!list.is_array() || list.size() > count_max) {
    return bad_value(name, value, fmt::format("a list of at most {} token ids", count_max));
  }
  for (const Json& entry : list) {
    CHORUS_TRY(const std::int64_t id, integer(name, entry, 0, token_count_max));
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

std::vector<TokenId> as_set(std::vector<TokenId> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

Result<void> set_stop_token_ids(GenerationOptions* options, const Json& value) {
  CHORUS_TRY(auto ids, token_ids("stop_token_ids", value, 1024));
  options->params.stop_token_ids = as_set(std::move(ids));
  return {};
}

Result<void> set_allowed_token_ids(GenerationOptions* options, const Json& value) {
  CHORUS_TRY(auto ids, token_ids("allowed_token_ids", value, token_count_max));
  if (ids.empty()) return bad_value("allowed_token_ids", value, "at least one token id, or leave it out");
  options->params.allowed_token_ids = as_set(std::move(ids));
  return {};
}

// In the order in which they were given, each once.
Result<void> set_logprob_token_ids(GenerationOptions* options, const Json& value) {
  CHORUS_TRY(const auto ids, token_ids("logprob_token_ids", value, logprob_token_ids_max));
  auto& wanted = options->params.logprob_token_ids;
  wanted.clear();
  for (const TokenId id : ids) {
    if (std::find(wanted.begin(), wanted.end(), id) == wanted.end()) wanted.push_back(id);
  }
  return {};
}

// vLLM's rule: no character that the names of cache stores give a meaning.
Result<void> set_cache_salt(GenerationOptions* options, const Json& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : std::string();
  constexpr std::string_view refused("@/\\\0", 4);
  if (text.empty() || text.size() > cache_salt_bytes_max || text.find_first_of(refused) != text.npos) {
    return bad_value("cache_salt", value,
                     fmt::format("a string of 1 to {} bytes without @, /, \\ and NUL", cache_salt_bytes_max));
  }
  options->cache_salt = text;
  return {};
}

Result<void> set_truncate_prompt_tokens(GenerationOptions* options, const Json& value) {
  const std::string accepted = fmt::format("-1, or a whole number from 1 to {}", token_count_max);
  const auto count = integer("truncate_prompt_tokens", value, -1, token_count_max);
  if (!count.ok() || *count == 0) return bad_value("truncate_prompt_tokens", value, accepted);
  options->truncate_prompt_tokens = static_cast<std::int32_t>(*count);
  return {};
}

Result<void> set_truncation_side(GenerationOptions* options, const Json& value) {
  if (value != "left" && value != "right") return bad_value("truncation_side", value, "\"left\" or \"right\"");
  options->truncates_right = value == "right";
  return {};
}

Result<void> set_logit_bias(GenerationOptions* options, const Json& value) {
  auto& bias = options->params.logit_bias;
  bias.clear();
  if (!value.is_object() || value.size() > 1024)
    return bad_value("logit_bias", value, "an object of at most 1024 token ids and biases");
  for (const auto& [key, entry] : value.items()) {
    const bool digits = !key.empty() && key.size() <= 8 &&
                        std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!digits) return bad_value("logit_bias", value, "token ids as keys");
    CHORUS_TRY(const double amount, number("logit_bias", entry, -100, 100));
    bias.emplace_back(static_cast<TokenId>(std::stol(key)), static_cast<float>(amount));
  }
  std::sort(bias.begin(), bias.end());
  return {};
}

// With dashes or underscores.
bool is_named(const SamplingOption& option, std::string_view name) {
  const auto same = [](char ours, char given) { return ours == (given == '-' ? '_' : given); };
  const std::string_view ours = option.name;
  return ours.size() == name.size() && std::equal(ours.begin(), ours.end(), name.begin(), same);
}

}  // namespace

const std::vector<SamplingOption>& sampling_options() {
  using O = GenerationOptions;
  static const std::vector<SamplingOption> table = {
      {"max_tokens", "N", "tokens to generate at most (16)",
       [](O* o, const Json& v) {
         o->fills_context = false;
         return set_integer(&o->params.max_tokens, "max_tokens", v, 1, token_count_max);
       }},
      {"min_tokens", "N", "tokens before which nothing may end the output",
       [](O* o, const Json& v) { return set_integer(&o->params.min_tokens, "min_tokens", v, 0, token_count_max); }},
      {"temperature", "X", "0 is greedy",
       [](O* o, const Json& v) { return set_number(&o->params.temperature, "temperature", v, 0, 1000); }},
      {"top_p", "X", "keep the most likely tokens of this total probability",
       [](O* o, const Json& v) -> Result<void> {
         CHORUS_TRY_VOID(set_number(&o->params.top_p, "top_p", v, 0, 1));
         if (o->params.top_p == 0) return bad_value("top_p", v, "a number above 0, at most 1");
         return {};
       }},
      {"top_k", "N", "keep the N most likely tokens; 0 or -1: all",
       [](O* o, const Json& v) { return set_integer(&o->params.top_k, "top_k", v, -1, token_count_max); }},
      {"min_p", "X", "keep tokens of at least this share of the best one's probability",
       [](O* o, const Json& v) { return set_number(&o->params.min_p, "min_p", v, 0, 1); }},
      {"presence_penalty", "X", "subtracted from tokens that the output has",
       [](O* o, const Json& v) { return set_number(&o->params.presence_penalty, "presence_penalty", v, -2, 2); }},
      {"frequency_penalty", "X", "subtracted for each time the output has the token",
       [](O* o, const Json& v) { return set_number(&o->params.frequency_penalty, "frequency_penalty", v, -2, 2); }},
      {"repetition_penalty", "X", "divides (above 0) the logits of tokens in prompt and output",
       [](O* o, const Json& v) {
         return set_number(&o->params.repetition_penalty, "repetition_penalty", v, 0.01, 100);
       }},
      {"n", "N", "choices a prompt", [](O* o, const Json& v) { return set_integer(&o->params.n, "n", v, 1, 128); }},
      {"seed", "N", "of the random numbers", set_seed},
      {"stop", "TEXT", "end before this text; repeatable", set_stop},
      {"stop_token_ids", "IDS", "end after one of these tokens", set_stop_token_ids},
      {"bad_words", "TEXT", "texts that the output must not have; repeatable", set_bad_words},
      {"allowed_token_ids", "IDS", "sample these tokens alone", set_allowed_token_ids},
      {"truncate_prompt_tokens", "N", "keep the prompt's last N tokens; -1: what fits", set_truncate_prompt_tokens},
      {"truncation_side", "SIDE", "left: keep the last ones (left); right: the first ones", set_truncation_side},
      {"cache_salt", "TEXT", "share cached prefixes with the same salt alone", set_cache_salt},
      {"include_stop_str_in_output", nullptr, "keep the stop text in the output",
       [](O* o, const Json& v) -> Result<void> {
         CHORUS_TRY(o->include_stop_str_in_output, flag("include_stop_str_in_output", v));
         return {};
       }},
      {"skip_special_tokens", nullptr, "leave special tokens out of the text (true)",
       [](O* o, const Json& v) -> Result<void> {
         CHORUS_TRY(o->skip_special_tokens, flag("skip_special_tokens", v));
         return {};
       }},
      {"ignore_eos", nullptr, "go on after the end-of-sequence token",
       [](O* o, const Json& v) -> Result<void> {
         CHORUS_TRY(o->params.ignore_eos, flag("ignore_eos", v));
         return {};
       }},
      {"logprobs", "K", "the chosen token's logprob and the K best a position",
       [](O* o, const Json& v) { return set_logprobs(&o->params.logprobs, "logprobs", v); }},
      {"prompt_logprobs", "K", "the same for the prompt's tokens",
       [](O* o, const Json& v) { return set_logprobs(&o->params.prompt_logprobs, "prompt_logprobs", v); }},
      {"logprob_token_ids", "IDS", "logprobs of these tokens in place of the K best", set_logprob_token_ids},
      {"logit_bias", "JSON", "{\"token id\": bias}", set_logit_bias},
  };
  return table;
}

Result<void> apply_sampling_option(GenerationOptions* options, std::string_view name, const Json& value) {
  for (const SamplingOption& option : sampling_options()) {
    if (!is_named(option, name)) continue;
    return value.is_null() ? Result<void>() : option.apply(options, value);
  }
  std::string wanted(name);
  std::replace(wanted.begin(), wanted.end(), '-', '_');
  std::vector<std::string> known;
  for (const SamplingOption& option : sampling_options()) known.emplace_back(option.name);
  const auto near = nearest_name(wanted, known);
  return fail(ErrorCode::invalid_argument, "unknown sampling option {}{}", name,
              near ? ": did you mean " + *near + "?" : "");
}

Result<void> apply_sampling_option_text(GenerationOptions* options, const std::string& name, const std::string& value) {
  if (name == "stop" || name == "bad-words") {  // a word like 42 or true is a text too; each one adds to the list
    Json list = Json::array();
    for (const std::string& text : name == "stop" ? options->stop : options->bad_words) list.push_back(text);
    list.push_back(value);
    return apply_sampling_option(options, name, list);
  }
  if (name == "cache-salt") return apply_sampling_option(options, name, Json(value));
  if (name.ends_with("-token-ids") && !value.empty() && value.front() != '[') {
    return apply_sampling_option_text(options, name, "[" + value + "]");
  }
  const auto parsed = parse_json(value);
  return apply_sampling_option(options, name, parsed.ok() ? *parsed : Json(value));
}

GenerationOptions default_generation_options(const ModelConfig& model, bool use_generation_config) {
  GenerationOptions options;
  if (!use_generation_config) return options;
  SamplingParams& params = options.params;
  params.temperature = model.default_temperature.value_or(params.temperature);
  params.top_p = model.default_top_p.value_or(params.top_p);
  params.top_k = model.default_top_k.value_or(params.top_k);
  params.min_p = model.default_min_p.value_or(params.min_p);
  params.presence_penalty = model.default_presence_penalty.value_or(params.presence_penalty);
  params.frequency_penalty = model.default_frequency_penalty.value_or(params.frequency_penalty);
  params.repetition_penalty = model.default_repetition_penalty.value_or(params.repetition_penalty);
  if (model.default_max_tokens) params.max_tokens = static_cast<std::uint32_t>(*model.default_max_tokens);
  return options;
}

}  // namespace chorus
