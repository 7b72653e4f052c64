#include "sched/invariants.h"

#include <algorithm>
#include <set>

#include "base/check.h"

namespace chorus {
namespace {

struct Use {
  std::int32_t users = 0;
  const Sequence* sequence = nullptr;  // the first one seen
  std::size_t index = 0;
};

void check_shared(const Use& use, const Sequence& other, std::size_t index, std::size_t block_size) {
  const std::size_t end = (index + 1) * block_size;
  CHECK(use.index == index, "a block is at {} of sequence {} and at {} of {}", use.index, use.sequence->id, index,
        other.id);
  for (const Sequence* sequence : {use.sequence, &other}) {
    CHECK(static_cast<std::size_t>(sequence->computed) >= end,
          "sequence {} shares block {} with {} of its tokens computed", sequence->id, index, sequence->computed);
  }
  CHECK(std::equal(other.history.begin(), other.history.begin() + static_cast<std::ptrdiff_t>(end),
                   use.sequence->history.begin()),
        "sequences {} and {} share block {} after other tokens", use.sequence->id, other.id, index);
}

}  // namespace

void check_scheduler_invariants(const SchedulerConfig& config, const ByRank& by_rank,
                                const std::vector<Sequence*>& running, const std::set<Sequence*, ByRank>& waiting,
                                const BlockManager& blocks) {
  const auto block_size = static_cast<std::size_t>(config.block_size);
  const KvPools pools = kv_pools(config);
  CHECK(running.size() <= static_cast<std::size_t>(config.max_num_seqs), "{} running", running.size());
  CHECK(std::ranges::is_sorted(running, by_rank), "running sequences out of order");
  std::vector<Use> uses(static_cast<std::size_t>(config.kv_blocks));
  for (const Sequence* sequence : running) {
    CHECK(sequence->status == SequenceStatus::running, "sequence {}", sequence->id);
    CHECK(sequence->computed < sequence->length() || sequence->length() == 0, "sequence {} has nothing to do",
          sequence->id);
    CHECK(sequence->block_table.size() * block_size >= static_cast<std::size_t>(sequence->computed),
          "sequence {} has {} blocks for {} tokens", sequence->id, sequence->block_table.size(), sequence->computed);
    for (std::size_t index = 0; index < sequence->block_table.size(); ++index) {
      const BlockId block = sequence->block_table[index];
      CHECK(block % pools.pools == pools.pool_of_index(static_cast<std::int32_t>(index)),
            "block {} of {} pools is at index {} of sequence {}", block, pools.pools, index, sequence->id);
      Use& use = uses[static_cast<std::size_t>(block)];
      if (use.users++ == 0) {
        use.sequence = sequence;
        use.index = index;
      } else {
        check_shared(use, *sequence, index, block_size);
      }
    }
  }
  for (const Sequence* sequence : waiting) {
    CHECK(sequence->status == SequenceStatus::waiting && sequence->block_table.empty() && sequence->computed == 0 &&
              !sequence->in_flight(),
          "waiting sequence {} has {} blocks", sequence->id, sequence->block_table.size());
  }
  std::vector<std::int32_t> used(static_cast<std::size_t>(pools.pools));
  for (BlockId block = 0; block < config.kv_blocks; ++block) {
    const std::int32_t users = uses[static_cast<std::size_t>(block)].users;
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
      CHECK(static_cast<std::size_t>(last) < sequence->block_table.size(), "sequence {} has {} blocks", sequence->id,
            sequence->block_table.size());
      for (std::int32_t block = plan.start / config.block_size; block <= last; ++block) {
        CHECK(blocks.users(sequence->block_table[static_cast<std::size_t>(block)]) == 1,
              "sequence {} writes a shared block at {}", sequence->id, block);
      }
    }
  }
  for (const Sequence* sequence : running) {
    CHECK(sequence->in_flight() == in_flight.contains(sequence), "sequence {} is not where it says", sequence->id);
  }
}

}  // namespace chorus
