#include "fleet/backlog.h"

#include "base/check.h"

namespace chorus {

void Backlog::push(Request request, std::optional<int> rank) {
  const Place place{rank.value_or(any_rank), {by_priority_ ? request.priority : 0, arrivals_++}};
  const bool is_new = places_.emplace(request.id, place).second;
  CHECK(is_new, "request {} waits already", request.id);
  queues_[place.rank].emplace(place.order, std::move(request));
}

std::optional<Request> Backlog::take(std::optional<int> rank) {
  const auto queue = queues_.find(rank.value_or(any_rank));
  if (queue == queues_.end() || queue->second.empty()) return std::nullopt;
  const auto first = queue->second.begin();
  Request request = std::move(first->second);
  queue->second.erase(first);
  places_.erase(request.id);
  return request;
}

bool Backlog::abort(RequestId request) {
  const auto place = places_.find(request);
  if (place == places_.end()) return false;
  queues_[place->second.rank].erase(place->second.order);
  places_.erase(place);
  return true;
}

bool Backlog::abort_choice(RequestId request, std::uint32_t choice) {
  const auto place = places_.find(request);
  if (place == places_.end()) return false;
  Request& waiting = queues_[place->second.rank].at(place->second.order);
  if (waiting.choices.empty()) {
    for (std::uint32_t index = 0; index < waiting.params.n; ++index) waiting.choices.push_back({index, {}});
  }
  std::erase_if(waiting.choices, [&](const ChoiceState& state) { return state.index == choice; });
  // No choices would mean n fresh ones: nothing is left to compute.
  if (waiting.choices.empty()) abort(request);
  return true;
}

}  // namespace chorus
