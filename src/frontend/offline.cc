#include "frontend/offline.h"

#include <algorithm>
#include <map>
#include <memory>
#include <unordered_set>
#include <utility>

#include "base/log.h"
#include "cluster/partition/assignment.h"

namespace chorus {
namespace {

constexpr int poll_ms = 100;
// Encoding a large input takes time; between this many prompts the engines' events are taken in.
constexpr std::size_t rows_between_polls = 64;
constexpr std::uint32_t tokens_expected = 64;  // of a choice: it gets room for so many at once
// Prompts that are remembered to notice an equal one.
constexpr std::size_t remembered_seeds_max = 65536;

double seconds_since(Nanoseconds start) {
  return static_cast<double>(monotonic_now() - start) * 1e-9;
}

// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, section 4).
std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

// Takes rows to the engine and puts together what comes back.
class OfflineRun {
 public:
  OfflineRun(TextEngine& engine, const OfflineWork& work) : engine_(engine), work_(work) {}
  ~OfflineRun() {
    for (const Row& row : rows_) {
      if (row.id != 0) engine_.abort(row.id);
    }
  }

  Result<void> run() {
    while (!exhausted_ || in_flight_ > 0) {
      CHORUS_TRY_VOID(read());
      const bool nothing_to_wait_for = may_read() || (exhausted_ && in_flight_ == 0);
      CHORUS_TRY_VOID(take(nothing_to_wait_for ? 0 : poll_ms));
      if (work_.on_progress) work_.on_progress(progress_);
      if (work_.between_polls) CHORUS_TRY_VOID(work_.between_polls());
      if (work_.interrupted && work_.interrupted()) return fail(ErrorCode::cancelled, "interrupted");
      if (work_.deadline && monotonic_now() >= *work_.deadline) return end_late();
    }
    return {};
  }

 private:
  struct Row {
    TextRequestId id = 0;  // 0: nothing is in this place
    std::size_t index = 0;
    GenerationOutput output;
    Nanoseconds added_at = 0;
  };

  bool may_read() const { return !exhausted_ && engine_.has_room() && (!work_.may_read || work_.may_read()); }

  Result<void> read() {
    for (std::size_t i = 0; i < rows_between_polls && may_read(); ++i) {
      CHORUS_TRY(std::optional<OfflineRow> next, work_.next());
      exhausted_ = !next;
      if (exhausted_) break;
      CHORUS_TRY_VOID(add(std::move(*next)));
    }
    return {};
  }

  // Its place is the request's tag.
  Result<void> add(OfflineRow&& given) {
    if (free_.empty()) {
      free_.push_back(rows_.size());
      rows_.emplace_back();
    }
    const std::uint32_t choices = given.input.options.params.n;
    const std::uint32_t tokens = std::min(given.input.options.params.max_tokens, tokens_expected);
    given.input.tag = free_.back();
    Row& row = rows_[free_.back()];
    CHORUS_TRY(row.id, engine_.add(std::move(given.input)));
    free_.pop_back();
    ++in_flight_;
    row.index = given.index;
    row.added_at = monotonic_now();
    row.output.choices.resize(choices);
    for (std::uint32_t choice = 0; choice < choices; ++choice) {
      row.output.choices[choice].index = choice;
      row.output.choices[choice].token_ids.reserve(tokens);
    }
    return {};
  }

  Row take_out(std::size_t place) {
    free_.push_back(place);
    --in_flight_;
    return std::exchange(rows_[place], Row());
  }

  Result<void> take(int timeout_ms) {
    deltas_.clear();
    CHORUS_TRY_VOID(engine_.poll(timeout_ms, &deltas_));
    for (TextDelta& delta : deltas_) {
      add_up(delta, &rows_[delta.tag]);
      if (!delta.last) continue;
      Row done = take_out(delta.tag);
      done.output.latency_s = done.output.error ? 0 : seconds_since(done.added_at);
      CHORUS_TRY_VOID(finish(done.index, std::move(done.output)));
    }
    return {};
  }

  void add_up(TextDelta& delta, Row* row) {
    GenerationOutput& output = row->output;
    if (delta.prompt) output.prompt = std::move(*delta.prompt);
    if (delta.last) {
      output.dp_rank = delta.dp_rank;
      output.prompt_tokens = delta.prompt_tokens;
    }
    if (!delta.prompt_logprobs.empty()) output.prompt_logprobs = std::move(delta.prompt_logprobs);
    if (delta.error) {
      output.error = std::move(delta.error);
      output.error_code = delta.error_code;
      output.choices.clear();
      return;
    }
    GeneratedChoice& choice = output.choices[delta.choice];
    choice.text += delta.text;
    if (delta.token) {
      if (choice.token_ids.empty() && output.ttft_s == 0) output.ttft_s = seconds_since(row->added_at);
      ++progress_.output_tokens;
      choice.token_ids.push_back(*delta.token);
    }
    if (delta.logprobs) choice.logprobs.push_back(std::move(*delta.logprobs));
    if (delta.finish == FinishReason::none) return;
    choice.finish_reason = delta.finish;
    choice.stop_token = delta.stop_token;
    choice.stop_string = std::move(delta.stop_string);
  }

  Result<void> finish(std::size_t index, GenerationOutput&& output) {
    ++progress_.finished;
    return work_.on_finished(index, std::move(output));
  }

  Result<void> finish_late(std::size_t index, GenerationOutput&& output) {
    output.choices.clear();
    output.error = work_.deadline_message;
    output.error_code = ErrorCode::deadline_exceeded;
    return finish(index, std::move(output));
  }

  // The rows in flight in input order, then those that were not read.
  Result<void> end_late() {
    std::map<std::size_t, GenerationOutput> late;
    for (std::size_t place = 0; place < rows_.size(); ++place) {
      if (rows_[place].id == 0) continue;
      engine_.abort(rows_[place].id);
      Row row = take_out(place);
      late.emplace(row.index, std::move(row.output));
    }
    for (auto& [index, output] : late) CHORUS_TRY_VOID(finish_late(index, std::move(output)));
    while (!exhausted_) {
      CHORUS_TRY(std::optional<OfflineRow> next, work_.next());
      exhausted_ = !next;
      if (exhausted_) break;
      GenerationOutput unread;
      unread.prompt.text = std::move(next->input.prompt);
      CHORUS_TRY_VOID(finish_late(next->index, std::move(unread)));
    }
    return {};
  }

  TextEngine& engine_;
  const OfflineWork& work_;
  std::vector<Row> rows_;          // in flight; id 0: a free place
  std::vector<std::size_t> free_;  // places in rows_
  std::size_t in_flight_ = 0;
  std::vector<TextDelta> deltas_;
  GenerationProgress progress_;
  bool exhausted_ = false;  // all rows were read
};

// Of seeds that were given by prompt: they are the prompts' hashes.
class SeedByPrompt {
 public:
  explicit SeedByPrompt(std::uint64_t engine_seed) : engine_seed_(engine_seed) {}

  std::uint64_t operator()(std::span<const TokenId> prompt, const SamplingParams& params) {
    const std::uint64_t seed = seed_for(engine_seed_, prompt);
    if (!said_ && params.temperature > 0) notice(seed);
    return seed;
  }

 private:
  void notice(std::uint64_t seed) {
    const bool known = seeds_.size() < remembered_seeds_max ? !seeds_.insert(seed).second : seeds_.contains(seed);
    if (!known) return;
    log(LogLevel::warning,
        "a prompt comes a second time, without a \"seed\" and with a temperature above 0: equal prompts get equal "
        "answers; for several samples of one prompt ask for n of them, or give each row a seed");
    said_ = true;
    seeds_.clear();
  }

  std::uint64_t engine_seed_;
  std::unordered_set<std::uint64_t> seeds_;
  bool said_ = false;
};

std::vector<std::optional<int>> ranks_for(const std::vector<GenerationInput>& inputs, const EngineConfig& config) {
  std::vector<std::int32_t> priorities;
  for (const GenerationInput& input : inputs) priorities.push_back(input.priority);
  std::vector<std::optional<int>> ranks =
      assign_ranks(config.assignment, config.parallel.data_parallel_size, inputs.size(), priorities);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dp_rank) ranks[i] = inputs[i].dp_rank;
  }
  return ranks;
}

}  // namespace

Result<void> run_offline(TextEngine& engine, const OfflineWork& work) {
  return OfflineRun(engine, work).run();
}

TextEngineLimits offline_limits(const EngineConfig& config) {
  TextEngineLimits limits;
  limits.requests_max =
      4 * static_cast<std::size_t>(config.max_num_seqs) * static_cast<std::size_t>(config.parallel.data_parallel_size);
  return limits;
}

std::uint64_t seed_for(std::uint64_t engine_seed, std::span<const TokenId> prompt) {
  std::uint64_t hash = mix(engine_seed + 0x9e3779b97f4a7c15U);
  for (const TokenId token : prompt) hash = mix(hash ^ (static_cast<std::uint32_t>(token) + 0x9e3779b97f4a7c15U));
  return hash;
}

SeedRule seed_by_prompt(std::uint64_t engine_seed) {
  // A std::function is copied, what it remembers is not.
  return [rule = std::make_shared<SeedByPrompt>(engine_seed)](
             std::span<const TokenId> prompt, const SamplingParams& params) { return (*rule)(prompt, params); };
}

std::vector<OfflineRow> deal(std::vector<GenerationInput> inputs, const EngineConfig& config) {
  const std::vector<std::optional<int>> ranks = ranks_for(inputs, config);
  std::map<int, std::size_t> seen;                         // by rank; -1: no rank
  std::vector<std::pair<std::size_t, std::size_t>> turns;  // with the row's index
  for (std::size_t i = 0; i < ranks.size(); ++i) turns.emplace_back(seen[ranks[i].value_or(-1)]++, i);
  std::sort(turns.begin(), turns.end());
  std::vector<OfflineRow> rows;
  for (const auto& [turn, index] : turns) {
    rows.push_back({index, std::move(inputs[index])});
    rows.back().input.dp_rank = ranks[index];
  }
  return rows;
}

std::function<Result<std::optional<OfflineRow>>()> rows_of(std::vector<OfflineRow>* rows) {
  return [rows, next = std::size_t{0}]() mutable -> Result<std::optional<OfflineRow>> {
    if (next == rows->size()) return std::optional<OfflineRow>();
    return std::optional<OfflineRow>(std::move((*rows)[next++]));
  };
}

}  // namespace chorus
