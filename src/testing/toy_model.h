// A small model for tests and simulation: the next token is a hash of everything the next token may depend on (all
// tokens so far, where the prompt ends, every sampling parameter, choice, output position). Two runs of a request agree
// token by token, or the scheduler, the ledger or the resume has lost or mixed up something.
//
// It keeps a KV cache as a real model does: slot (block, offset) holds a hash of the token prefix that ends there,
// written when the row is computed and read back through the block table. So a block shared wrongly, freed too early or
// never computed gives a failed CHECK (with verify_context) or other tokens (without).
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/numerics.h"
#include "sched/kv_shape.h"
#include "sched/step_plan.h"

namespace chorus {

class ToyModel {
 public:
  struct Config {
    std::int32_t kv_blocks = 64;
    std::int32_t block_size = 16;
    std::int32_t vocab_size = 1000;
    bool verify_context = true;  // read back every position of the context in every step, not only the last: O(context)
    // As in SchedulerConfig: of which pool each block must be.
    std::int32_t plans_in_flight_max = 1;
    std::int32_t kv_pools = 1;
    std::int32_t kv_pool_tokens = attention_partition_keys;
    KvWindow kv_window = {};
  };

  explicit ToyModel(Config config)
      : config_(config),
        kv_(static_cast<std::size_t>(config.kv_blocks) * static_cast<std::size_t>(config.block_size), 0),
        written_(kv_.size(), 0) {}

  const Config& config() const { return config_; }

  // Computes the plan. All contexts are read before any row is written: a step may use only what earlier steps
  // computed.
  void execute(const StepPlan& plan, StepResult* result) {
    ++step_;
    result->sequences.resize(plan.sequences.size());
    std::int32_t rows = 0;
    for (const SequencePlan& sequence : plan.sequences) {
      check_shape(sequence);
      if (config_.verify_context) verify_context(sequence);
      rows += sequence.count;
    }
    CHECK(rows == plan.rows, "the plan says {} rows, its sequences have {}", plan.rows, rows);
    for (std::size_t i = 0; i < plan.sequences.size(); ++i) compute(plan.sequences[i], &result->sequences[i]);
  }

  // The token that follows `history` (prompt and output so far) for this choice: what execute() samples.
  TokenId next_token(std::span<const TokenId> history, std::size_t prompt_length, const SamplingParams& params,
                     std::uint32_t choice, std::span<const TokenId> banned) const {
    std::uint64_t prefix = root();
    for (const TokenId token : history) prefix = extend(prefix, token);
    return sample(prefix, history.size(), prompt_length, params, choice, banned);
  }

 private:
  // splitmix64's finalizer (Steele, Lea, Flood 2014).
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
  }
  static std::uint64_t root() { return 0x9E3779B97F4A7C15ULL; }
  static std::uint64_t extend(std::uint64_t prefix, TokenId token) {
    return mix(prefix * 31 + static_cast<std::uint32_t>(token) + 0x9E3779B97F4A7C15ULL);
  }

  void check_shape(const SequencePlan& sequence) const {
    CHECK(sequence.start >= 0 && sequence.count > 0, "sequence {}: start {} count {}", sequence.sequence,
          sequence.start, sequence.count);
    const auto end = static_cast<std::size_t>(sequence.start) + static_cast<std::size_t>(sequence.count);
    CHECK(sequence.history.size() >= end, "sequence {}: {} tokens known, rows up to {}", sequence.sequence,
          sequence.history.size(), end);
    for_tables(sequence, [&](std::span<const BlockId> table, std::uint64_t, std::int32_t) {
      CHECK(table.size() * static_cast<std::size_t>(config_.block_size) >= end, "sequence {}: {} blocks, rows up to {}",
            sequence.sequence, table.size(), end);
    });
    for (std::size_t i = 0; config_.kv_pools > 1 && i < sequence.block_table.size(); ++i) {
      const std::int64_t position = static_cast<std::int64_t>(i) * config_.block_size;
      CHECK(sequence.block_table[i] % config_.kv_pools == position / config_.kv_pool_tokens % config_.kv_pools,
            "sequence {}: block {} of {} pools holds position {}", sequence.sequence, sequence.block_table[i],
            config_.kv_pools, position);
    }
    CHECK(!sequence.sample || sequence.history.size() == end, "sequence {}: sampled in the middle", sequence.sequence);
  }

  // visit(table, mark, first): each block table of the sequence, what marks its values as its own, and the first
  // position that the rows see through it.
  template <typename Visit>
  void for_tables(const SequencePlan& sequence, const Visit& visit) const {
    visit(sequence.block_table, std::uint64_t{0}, 0);
    CHECK(sequence.window_tables.size() == static_cast<std::size_t>(config_.kv_window.tables),
          "sequence {}: {} windowed tables", sequence.sequence, sequence.window_tables.size());
    for (std::size_t table = 0; table < sequence.window_tables.size(); ++table) {
      visit(std::span<const BlockId>(sequence.window_tables[table]), std::uint64_t{table + 1},
            std::max(0, sequence.start + 1 - config_.kv_window.keys));
    }
  }

  std::size_t slot(std::span<const BlockId> table, std::int32_t position) const {
    const BlockId block = table[static_cast<std::size_t>(position / config_.block_size)];
    CHECK(block >= 0 && block < config_.kv_blocks, "block {} of {}", block, config_.kv_blocks);
    return static_cast<std::size_t>(block) * static_cast<std::size_t>(config_.block_size) +
           static_cast<std::size_t>(position % config_.block_size);
  }

  void verify_context(const SequencePlan& sequence) const {
    std::uint64_t prefix = root();
    for (std::int32_t position = 0; position < sequence.start; ++position) {
      prefix = extend(prefix, sequence.history[static_cast<std::size_t>(position)]);
      for_tables(sequence, [&](std::span<const BlockId> table, std::uint64_t mark, std::int32_t first) {
        CHECK(position < first || kv_[slot(table, position)] == (prefix ^ mark),
              "sequence {} reads another prefix at position {}", sequence.sequence, position);
      });
    }
  }

  void compute(const SequencePlan& sequence, SequenceResult* result) {
    result->token = -1;
    result->not_a_number = false;
    result->prompt_logprobs.clear();
    std::uint64_t prefix = sequence.start == 0 ? root() : kv_[slot(sequence.block_table, sequence.start - 1)];
    for (std::int32_t position = sequence.start; position < sequence.start + sequence.count; ++position) {
      prefix = extend(prefix, sequence.history[static_cast<std::size_t>(position)]);
      for_tables(sequence, [&](std::span<const BlockId> table, std::uint64_t mark, std::int32_t) {
        const std::size_t at = slot(table, position);
        CHECK(written_[at] != step_, "two rows of one step write slot {}", at);
        written_[at] = step_;
        kv_[at] = prefix ^ mark;
      });
      if (sequence.prompt_logprobs && position + 1 < sequence.prompt_length) {
        const TokenId predicted = sequence.history[static_cast<std::size_t>(position) + 1];
        result->prompt_logprobs.push_back({{predicted, logprob(prefix, predicted)}, {}});
      }
    }
    if (!sequence.sample) return;
    result->token = sample(prefix, sequence.history.size(), static_cast<std::size_t>(sequence.prompt_length),
                           *sequence.params, sequence.choice, sequence.banned);
    if (sequence.params->logprobs) result->logprobs = {{result->token, logprob(prefix, result->token)}, {}};
  }

  TokenId sample(std::uint64_t prefix, std::size_t length, std::size_t prompt_length, const SamplingParams& params,
                 std::uint32_t choice, std::span<const TokenId> banned) const {
    const std::uint64_t position = length - prompt_length;
    std::uint64_t draw = mix(prefix ^ hash_of(params) ^
                             mix(params.seed + (std::uint64_t{choice} << 32) + position * 0x9E3779B97F4A7C15ULL));
    auto token = static_cast<TokenId>(draw % static_cast<std::uint64_t>(config_.vocab_size));
    const auto is_banned = [&] {
      for (const TokenId candidate : banned) {
        if (candidate == token) return true;
      }
      return false;
    };
    while (is_banned()) token = (token + 1) % config_.vocab_size;
    return token;
  }

  // Of every sampling parameter, whatever it means: one that is lost on its way gives other tokens.
  static std::uint64_t hash_of(const SamplingParams& params) {
    std::uint64_t hash = root();
    for_each_field(params, [&](const auto& field) { add_to_hash(&hash, field); });
    return hash;
  }
  template <typename T>
  static void add_to_hash(std::uint64_t* hash, const T& value) {
    if constexpr (std::is_floating_point_v<T>) {
      add_to_hash(hash, std::bit_cast<std::uint64_t>(static_cast<double>(value)));
    } else {
      *hash = mix(*hash * 31 + static_cast<std::uint64_t>(value));
    }
  }
  template <typename T>
  static void add_to_hash(std::uint64_t* hash, const std::optional<T>& value) {
    add_to_hash(hash, value.has_value());
    if (value.has_value()) add_to_hash(hash, *value);
  }
  template <typename T>
  static void add_to_hash(std::uint64_t* hash, const std::vector<T>& values) {
    add_to_hash(hash, values.size());
    for (const T& value : values) add_to_hash(hash, value);
  }
  template <typename First, typename Second>
  static void add_to_hash(std::uint64_t* hash, const std::pair<First, Second>& value) {
    add_to_hash(hash, value.first);
    add_to_hash(hash, value.second);
  }

  static float logprob(std::uint64_t prefix, TokenId token) {
    return -static_cast<float>(extend(prefix, token) >> 40) * 0x1.0p-20F;
  }

  Config config_;
  std::vector<std::uint64_t> kv_;       // prefix hash a slot
  std::vector<std::uint64_t> written_;  // step that wrote the slot last
  std::uint64_t step_ = 0;
};

}  // namespace chorus
