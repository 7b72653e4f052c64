// Who takes which prompt of a batch whose size is known (offline generation, workflow batches). Every rank has a queue
// of prompts, dealt before the start; it takes from its front. What differs is the dealing, and who may take from
// another's queue.
//
//   modulo       prompt i belongs to rank i mod R
//   contiguous   the first ranks take the first, larger shares: 33 over 4 is [9, 8, 8, 8]
//   priority     by priority (lower first, equals in input order), then dealt in turn
//   dynamic      dealt as contiguous; a rank whose queue is empty takes from the back of the longest other queue
//
// Output does not depend on any of it, only speed does. Pure: no clock, no thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "config/engine_config.h"

namespace chorus {

// `total` in `parts` as evenly as can be, larger parts first: even_split(33, 4) is [9, 8, 8, 8].
std::vector<std::size_t> even_split(std::size_t total, std::size_t parts);

struct AssignmentOptions {
  AssignmentName name = AssignmentName::dynamic;
  int ranks = 1;
  std::uint32_t window = 0;  // requests in flight per rank at most; 0: no bound
};

class Assignment {
 public:
  // `priorities`: one a prompt; used by AssignmentName::priority, may be empty otherwise.
  Assignment(const AssignmentOptions& options, std::size_t prompts, std::span<const std::int32_t> priorities = {});

  // The next prompt (index in input order) for `rank`, which has `in_flight` requests now; each prompt is given once.
  // nullopt: its window is full, or there is nothing for it. Ask again after an end, and after rank_lost().
  std::optional<std::size_t> next_for(int rank, std::uint32_t in_flight);

  // A lost rank takes nothing; what is left in its queue is open to every rank whose own queue is empty. (What it had
  // in flight is the ledger's business.) After rank_back() it goes on with what is left.
  void rank_lost(int rank);
  void rank_back(int rank);

  // Dealt to each rank at the start: for "Assigned N prompts to rank X".
  const std::vector<std::size_t>& planned() const { return planned_; }
  // Not given yet, of all ranks.
  std::size_t remaining() const { return remaining_; }

 private:
  std::optional<std::size_t> take_from_lost();
  std::optional<std::size_t> take_from_longest();

  AssignmentOptions options_;
  std::vector<std::deque<std::size_t>> queues_;
  std::vector<bool> lost_;
  std::vector<std::size_t> planned_;
  std::size_t remaining_ = 0;
};

}  // namespace chorus
