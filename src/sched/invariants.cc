#include "sched/invariants.h"

#include <algorithm>
#include <set>

#include "base/check.h"

namespace chorus {
namespace {

struct Use {
  std::int32_t users = 0;
  const Sequence* sequence = nullptr;  // the first one seen
  std::size_t table = 0;               // 0, or 1 + the windowed table
  std::size_t index = 0;
};

void check_shared(const Use& use, const Use& other, std::size_t block_size) {
  const std::size_t end = (use.index + 1) * block_size;
  CHECK(use.index == other.index && use.table == other.table,
        "a block is at {} in table {} of sequence {} and at {} in table {} of {}", use.index, use.table,
        use.sequence->id, other.index, other.table, other.sequence->id);
  for (const Sequence* sequence : {use.sequence, other.sequence}) {
    CHECK(static_cast<std::size_t>(sequence->computed) >= end,
          "sequence {} shares block {} with {} of its tokens computed", sequence->id, use.index, sequence->computed);
  }
  const auto& history = other.sequence->history;
  CHECK(std::equal(history.begin(), history.begin() + static_cast<std::ptrdiff_t>(end), use.sequence->history.begin()),
        "sequences {} and {} share block {} after other tokens", use.sequence->id, other.sequence->id, use.index);
}

// The uses of all blocks, each checked against the ones before it.
class Uses {
 public:
  Uses(const SchedulerConfig& config, std::span<Sequence* const> running)
      : block_size_(static_cast<std::size_t>(config.block_size)), uses_(static_cast<std::size_t>(config.kv_blocks)) {
    const KvPools pools = kv_shape(config).pools;
    for (const Sequence* sequence : running) {
      for (std::size_t index = 0; index < sequence->block_table.size(); ++index) {
        const BlockId block = sequence->block_table[index];
        CHECK(block % pools.pools == pools.pool_of_index(static_cast<std::int32_t>(index)),
              "block {} of {} pools is at index {} of sequence {}", block, pools.pools, index, sequence->id);
        add(block, {1, sequence, 0, index});
      }
      add_windows(*sequence);
    }
  }

  std::int32_t of(BlockId block) const { return uses_[static_cast<std::size_t>(block)].users; }

 private:
  void add(BlockId block, const Use& other) {
    Use& use = uses_[static_cast<std::size_t>(block)];
    if (use.users++ == 0) {
      use = other;
    } else {
      check_shared(use, other, block_size_);
    }
  }
  void add_windows(const Sequence& sequence) {
    for (std::size_t table = 0; table < sequence.window_tables.size(); ++table) {
      const auto& blocks = sequence.window_tables[table];
      for (auto index = static_cast<std::size_t>(sequence.window_first); index < blocks.size(); ++index)
        add(blocks[index], {1, &sequence, table + 1, index});
    }
  }

  std::size_t block_size_;
  std::vector<Use> uses_;
};

// What the next row reads is there, and no more than a step may need.
void check_windows(const SchedulerConfig& config, const Sequence& sequence) {
  const KvWindow& window = config.kv_window;
  CHECK(sequence.window_tables.size() == static_cast<std::size_t>(window.tables), "sequence {} has {} windowed tables",
        sequence.id, sequence.window_tables.size());
  for (const auto& table : sequence.window_tables) {
    const auto held = static_cast<std::int64_t>(table.size()) - sequence.window_first;
    CHECK(table.size() * static_cast<std::size_t>(config.block_size) >= static_cast<std::size_t>(sequence.computed) &&
              table.size() <= sequence.block_table.size() &&
              sequence.window_first <= window.first_block(sequence.computed, config.block_size),
          "sequence {} has windowed blocks [{}, {}) for {} tokens", sequence.id, sequence.window_first, table.size(),
          sequence.computed);
    CHECK(held <= window.blocks_max(held, config.max_num_batched_tokens, config.block_size),
          "sequence {} holds {} blocks for a window of {} keys", sequence.id, held, window.keys);
  }
}

}  // namespace

void check_scheduler_invariants(const SchedulerConfig& config, const ByRank& by_rank,
                                const std::vector<Sequence*>& running, const std::set<Sequence*, ByRank>& waiting,
                                const BlockManager& blocks) {
  const auto block_size = static_cast<std::size_t>(config.block_size);
  const KvPools pools = kv_shape(config).pools;
  CHECK(running.size() <= static_cast<std::size_t>(config.max_num_seqs), "{} running", running.size());
  CHECK(std::ranges::is_sorted(running, by_rank), "running sequences out of order");
  for (const Sequence* sequence : running) {
    CHECK(sequence->status == SequenceStatus::running, "sequence {}", sequence->id);
    CHECK(sequence->computed < sequence->length() || sequence->length() == 0, "sequence {} has nothing to do",
          sequence->id);
    CHECK(sequence->block_table.size() * block_size >= static_cast<std::size_t>(sequence->computed),
          "sequence {} has {} blocks for {} tokens", sequence->id, sequence->block_table.size(), sequence->computed);
    check_windows(config, *sequence);
  }
  const Uses uses(config, running);
  for (const Sequence* sequence : waiting) {
    CHECK(sequence->status == SequenceStatus::waiting && sequence->block_table.empty() && sequence->computed == 0 &&
              sequence->window_first == 0 && !sequence->in_flight(),
          "waiting sequence {} has {} blocks", sequence->id, sequence->block_table.size());
  }
  std::vector<std::int32_t> used(static_cast<std::size_t>(pools.pools));
  for (BlockId block = 0; block < config.kv_blocks; ++block) {
    const std::int32_t users = uses.of(block);
    CHECK(blocks.users(block) == users, "block {} counts {} users, tables name it {} times", block, blocks.users(block),
          users);
    used[static_cast<std::size_t>(block % pools.pools)] += users > 0 ? 1 : 0;
  }
  std::int32_t free = 0;
  for (std::int32_t pool = 0; pool < pools.pools; ++pool) {
    free += blocks.free_in(pool);
    CHECK(blocks.free_in(pool) == pools.size(config.kv_blocks, pool) - used[static_cast<std::size_t>(pool)],
          "{} blocks free in pool {}, {} used", blocks.free_in(pool), pool, used[static_cast<std::size_t>(pool)]);
  }
  CHECK(blocks.free() == free, "{} blocks free, {} in the pools", blocks.free(), free);
}

void check_plan_invariants(const SchedulerConfig& config, const std::vector<Sequence*>& running, const PlanRing& plans,
                           const BlockManager& blocks) {
  std::set<const Sequence*> in_flight;
  for (std::int32_t i = 0; i < plans.in_flight(); ++i) {
    const PlanSlot& slot = plans.at(i);
    CHECK(slot.sequences.size() == slot.plan.sequences.size(), "{} sequences in a plan of {}", slot.sequences.size(),
          slot.plan.sequences.size());
    for (std::size_t index = 0; index < slot.sequences.size(); ++index) {
      const Sequence* sequence = slot.sequences[index];
      if (sequence == nullptr) continue;
      const SequencePlan& plan = slot.plan.sequences[index];
      CHECK(in_flight.insert(sequence).second, "sequence {} is in two plans in flight", sequence->id);
      CHECK(sequence->status == SequenceStatus::running && sequence->in_flight() && sequence->plan_index == index &&
                plan.sequence == sequence->id && plan.start == sequence->computed,
            "sequence {} is in flight from {}, {} are computed", sequence->id, plan.start, sequence->computed);
      const std::int32_t last = (plan.start + plan.count - 1) / config.block_size;
      const auto check_own = [&](const std::vector<BlockId>& table) {
        CHECK(static_cast<std::size_t>(last) < table.size(), "sequence {} has {} blocks", sequence->id, table.size());
        for (std::int32_t block = plan.start / config.block_size; block <= last; ++block) {
          CHECK(blocks.users(table[static_cast<std::size_t>(block)]) == 1, "sequence {} writes a shared block at {}",
                sequence->id, block);
        }
      };
      check_own(sequence->block_table);
      for (const auto& table : sequence->window_tables) check_own(table);
    }
  }
  for (const Sequence* sequence : running) {
    CHECK(sequence->in_flight() == in_flight.contains(sequence), "sequence {} is not where it says", sequence->id);
  }
}

}  // namespace chorus
