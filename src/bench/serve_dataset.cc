#include "bench/serve_dataset.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/philox.h"
#include "bench/random_prompts.h"
#include "bench/trace_file.h"
#include "bench/workload.h"
#include "json/file.h"
#include "json/json.h"
#include "json/member.h"

namespace chorus {
namespace {

constexpr std::uint32_t shuffle_stream = 1, draw_stream = 2;  // of the random numbers

std::size_t below(std::size_t count, std::uint64_t seed, std::uint32_t stream, std::size_t index) {
  return static_cast<std::size_t>(philox_uniform(seed, stream, index) * static_cast<double>(count));
}

template <typename T>
void shuffle(std::vector<T>* items, std::uint64_t seed) {
  for (std::size_t i = items->size(); i > 1; --i) {
    std::swap((*items)[i - 1], (*items)[below(i, seed, shuffle_stream, i)]);
  }
}

bool is_enough(const std::vector<ServePrompt>& prompts, const DatasetOptions& options) {
  return options.num_prompts > 0 && prompts.size() >= static_cast<std::size_t>(options.num_prompts);
}

void oversample(std::vector<ServePrompt>* prompts, const DatasetOptions& options) {
  const std::size_t read = prompts->size();
  while (options.oversample && prompts->size() < static_cast<std::size_t>(std::max(options.num_prompts, 0))) {
    prompts->push_back((*prompts)[below(read, options.seed, draw_stream, prompts->size())]);
  }
}

Error no_prompts(const DatasetOptions& options, const char* what) {
  return fail(ErrorCode::invalid_argument, "--dataset-path {}: {}", options.path, what);
}

struct Conversation {
  std::string prompt, answer;
};

Result<std::vector<Conversation>> read_conversations(const std::string& path) {
  CHORUS_TRY(const Json entries, read_json_file(path, {.bytes_max = dataset_bytes_max}));
  std::vector<Conversation> conversations;
  if (!entries.is_array()) return fail(ErrorCode::invalid_argument, "{}: not a JSON array of conversations", path);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Json& turns = member(entries[i], "conversations");
    if (!turns.is_array() || turns.size() < 2) continue;
    const Json& prompt = member(turns[0], "value");
    const Json& answer = member(turns[1], "value");
    if (!prompt.is_string() || !answer.is_string()) {
      return fail(ErrorCode::invalid_argument,
                  "{} entry {}: a turn of its \"conversations\" has no string \"value\": leave the entry out", path,
                  i + 1);
    }
    conversations.push_back({prompt, answer});
  }
  return conversations;
}

// What vLLM measures with: neither too short to say anything nor too long for a common context.
bool is_of_common_length(std::size_t prompt, std::size_t output, bool is_given) {
  return prompt >= 4 && (is_given || output >= 4) && prompt <= 1024 && prompt + output <= 2048;
}

Result<std::vector<ServePrompt>> sharegpt(const DatasetOptions& options, const ServeTokenizer& tokenizer) {
  if (options.sharegpt_output_len) {
    CHORUS_TRY_VOID(check_between("--sharegpt-output-len", *options.sharegpt_output_len, 1, length_max));
  }
  CHORUS_TRY(std::vector<Conversation> conversations, read_conversations(options.path));
  if (options.shuffle) shuffle(&conversations, options.seed);
  std::vector<ServePrompt> prompts;
  for (Conversation& conversation : conversations) {
    if (is_enough(prompts, options)) break;
    CHORUS_TRY(const auto prompt, tokenizer.tokenize(conversation.prompt, true));
    std::size_t output = static_cast<std::size_t>(options.sharegpt_output_len.value_or(0));
    if (!options.sharegpt_output_len) {
      CHORUS_TRY(const auto answer, tokenizer.tokenize(conversation.answer, true));
      output = answer.size();
    }
    if (!is_of_common_length(prompt.size(), output, options.sharegpt_output_len.has_value())) continue;
    prompts.push_back({std::move(conversation.prompt), {}, prompt.size(), static_cast<int>(output), 0});
  }
  if (prompts.empty()) return no_prompts(options, "no conversation of two turns and 4 to 1024 prompt tokens");
  oversample(&prompts, options);
  return prompts;
}

Result<int> output_len_of(const Json& row, const DatasetOptions& options) {
  if (options.custom_output_len > 0) return options.custom_output_len;
  if (const auto tokens = length_in(row, "output_tokens")) return *tokens;
  return fail(ErrorCode::invalid_argument,
              "no whole number \"output_tokens\" from 1 to {}: give one, or --custom-output-len", length_max);
}

Result<std::vector<ServePrompt>> custom(const DatasetOptions& options) {
  if (options.custom_output_len != -1) {
    CHORUS_TRY_VOID(check_between("--custom-output-len", options.custom_output_len, 1, length_max));
  }
  CHORUS_TRY(const std::string text, read_text_file(options.path, dataset_bytes_max));
  std::vector<ServePrompt> prompts;
  const auto take = [&](std::size_t, Json&& row) -> Result<void> {
    const bool has_prompt = row.is_object() && row.contains("prompt") && row["prompt"].is_string();
    if (!has_prompt) return fail(ErrorCode::invalid_argument, "no string \"prompt\"");
    CHORUS_TRY(const int output_len, output_len_of(row, options));
    prompts.push_back({row["prompt"].get<std::string>(), {}, 0, output_len, 0});
    return {};
  };
  if (const Result<void> read = for_each_json_line(text, take); !read.ok()) {
    return with_context(read.error(), options.path);
  }
  if (prompts.empty()) return no_prompts(options, "no rows: give at least one prompt");
  if (options.shuffle) shuffle(&prompts, options.seed);
  if (is_enough(prompts, options)) prompts.resize(static_cast<std::size_t>(options.num_prompts));
  oversample(&prompts, options);
  return prompts;
}

Result<std::vector<ServePrompt>> timed_trace(const DatasetOptions& options, const ServeTokenizer& tokenizer) {
  CHORUS_TRY(const std::vector<TraceEntry> trace, read_trace_file(options));
  CHORUS_TRY(const RandomTokens tokens, RandomTokens::of(tokenizer, options.seed));
  std::vector<ServePrompt> prompts;
  for (const TraceEntry& entry : trace) {
    ServePrompt& prompt = prompts.emplace_back();
    prompt.ids.reserve(static_cast<std::size_t>(entry.input_len));
    for (const std::uint64_t hash : entry.hashes) {
      tokens.append_block(hash, std::min(options.trace_chunk, entry.input_len - static_cast<int>(prompt.ids.size())),
                          &prompt.ids);
    }
    if (entry.hashes.empty()) tokens.append(prompts.size(), entry.input_len, &prompt.ids);
    prompt.tokens = prompt.ids.size();
    prompt.output_len = entry.output_len;
    prompt.at_s = entry.at_s;
  }
  return prompts;
}

}  // namespace

std::optional<int> length_in(const Json& row, const std::string& name) {
  const Json& value = member(row, name);
  const bool is_length = value.is_number_integer() && value >= 1 && value <= length_max;
  return is_length ? std::optional(value.get<int>()) : std::nullopt;
}

Result<std::vector<ServePrompt>> load_dataset(const DatasetOptions& options, const ServeTokenizer& tokenizer) {
  CHORUS_TRY_VOID(check_at_least("--num-prompts", options.num_prompts, 0));
  if (options.name == "random") {
    if (options.path.empty()) return random_prompts(options, tokenizer);
    return fail(ErrorCode::invalid_argument,
                "--dataset-path {}: random prompts come from no file; name the file's kind with --dataset-name: {}",
                options.path, dataset_names);
  }
  const bool is_known = options.name == "sharegpt" || options.name == "custom" || options.name == "timed_trace";
  if (!is_known) {
    return fail(ErrorCode::invalid_argument, "--dataset-name {}: known are {}", options.name, dataset_names);
  }
  if (options.path.empty()) {
    return fail(ErrorCode::invalid_argument, "--dataset-name {} needs a file: give --dataset-path", options.name);
  }
  if (options.name == "sharegpt") return sharegpt(options, tokenizer);
  if (options.name == "custom") return custom(options);
  if (!options.as_text) return timed_trace(options, tokenizer);
  return fail(ErrorCode::invalid_argument,
              "--dataset-name timed_trace sends token ids, which a chat cannot have: use --backend openai");
}

}  // namespace chorus
