#include "sched/invariants.h"

#include <algorithm>

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
      Use& use = uses[static_cast<std::size_t>(sequence->block_table[index])];
      if (use.users++ == 0) {
        use.sequence = sequence;
        use.index = index;
      } else {
        check_shared(use, *sequence, index, block_size);
      }
    }
  }
  for (const Sequence* sequence : waiting) {
    CHECK(sequence->status == SequenceStatus::waiting && sequence->block_table.empty() && sequence->computed == 0,
          "waiting sequence {} has {} blocks", sequence->id, sequence->block_table.size());
  }
  std::int32_t used = 0;
  for (BlockId block = 0; block < config.kv_blocks; ++block) {
    const std::int32_t users = uses[static_cast<std::size_t>(block)].users;
    CHECK(blocks.users(block) == users, "block {} counts {} users, tables name it {} times", block, blocks.users(block),
          users);
    used += users > 0 ? 1 : 0;
  }
  CHECK(blocks.free() == config.kv_blocks - used, "{} blocks free, {} of {} used", blocks.free(), used,
        config.kv_blocks);
}

}  // namespace chorus
