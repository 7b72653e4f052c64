#include "cluster/partition/assignment.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace chorus {
namespace {

using Queues = std::vector<std::deque<std::size_t>>;

void deal_in_turn(std::span<const std::size_t> prompts, Queues* queues) {
  for (std::size_t i = 0; i < prompts.size(); ++i) (*queues)[i % queues->size()].push_back(prompts[i]);
}

void deal_contiguous(std::span<const std::size_t> prompts, Queues* queues) {
  const std::vector<std::size_t> shares = even_split(prompts.size(), queues->size());
  std::size_t next = 0;
  for (std::size_t rank = 0; rank < shares.size(); ++rank) {
    const auto share = prompts.subspan(next, shares[rank]);
    (*queues)[rank].assign(share.begin(), share.end());
    next += shares[rank];
  }
}

}  // namespace

std::vector<std::size_t> even_split(std::size_t total, std::size_t parts) {
  CHECK(parts > 0, "parts {}", parts);
  std::vector<std::size_t> shares(parts, total / parts);
  for (std::size_t part = 0; part < total % parts; ++part) ++shares[part];
  return shares;
}

Assignment::Assignment(const AssignmentOptions& options, std::size_t prompts, std::span<const std::int32_t> priorities)
    : options_(options), remaining_(prompts) {
  CHECK(options.ranks > 0, "ranks {}", options.ranks);
  const bool by_priority = options.name == AssignmentName::priority;
  CHECK(!by_priority || priorities.size() == prompts, "{} priorities of {} prompts", priorities.size(), prompts);
  queues_.resize(static_cast<std::size_t>(options.ranks));
  lost_.resize(queues_.size(), false);
  std::vector<std::size_t> order(prompts);
  std::iota(order.begin(), order.end(), std::size_t{0});
  switch (options.name) {
    case AssignmentName::modulo:
      deal_in_turn(order, &queues_);
      break;
    case AssignmentName::contiguous:
    case AssignmentName::dynamic:
      deal_contiguous(order, &queues_);
      break;
    case AssignmentName::priority:
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return priorities[a] < priorities[b]; });
      deal_in_turn(order, &queues_);
      break;
  }
  for (const auto& queue : queues_) planned_.push_back(queue.size());
}

std::optional<std::size_t> Assignment::next_for(int rank, std::uint32_t in_flight) {
  CHECK(rank >= 0 && rank < options_.ranks, "rank {} of {}", rank, options_.ranks);
  const auto index = static_cast<std::size_t>(rank);
  if (lost_[index] || (options_.window != 0 && in_flight >= options_.window)) return std::nullopt;
  std::optional<std::size_t> prompt;
  if (auto& own = queues_[index]; !own.empty()) {
    prompt = own.front();
    own.pop_front();
  } else {
    prompt = options_.name == AssignmentName::dynamic ? take_from_longest() : take_from_lost();
  }
  if (prompt) --remaining_;
  return prompt;
}

std::optional<std::size_t> Assignment::take_from_lost() {
  for (std::size_t rank = 0; rank < queues_.size(); ++rank) {
    if (!lost_[rank] || queues_[rank].empty()) continue;
    const std::size_t prompt = queues_[rank].front();
    queues_[rank].pop_front();
    return prompt;
  }
  return std::nullopt;
}

std::optional<std::size_t> Assignment::take_from_longest() {
  const auto longest = std::max_element(queues_.begin(), queues_.end(),
                                        [](const auto& a, const auto& b) { return a.size() < b.size(); });
  if (longest->empty()) return std::nullopt;
  const std::size_t prompt = longest->back();
  longest->pop_back();
  return prompt;
}

void Assignment::rank_lost(int rank) {
  lost_.at(static_cast<std::size_t>(rank)) = true;
}

void Assignment::rank_back(int rank) {
  lost_.at(static_cast<std::size_t>(rank)) = false;
}

}  // namespace chorus
