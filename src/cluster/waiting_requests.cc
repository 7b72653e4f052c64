#include "cluster/waiting_requests.h"

#include "base/check.h"

namespace chorus {

void WaitingRequests::push(RequestId request, const Place& place) {
  const bool is_new = queues_[place.wish].emplace(place.order, Entry{request, place.tokens}).second;
  CHECK(is_new, "request {} waits already", request);
  ++size_;
  tokens_ += place.tokens;
}

void WaitingRequests::erase(const Place& place) {
  const auto queue = queues_.find(place.wish);
  if (queue == queues_.end() || queue->second.erase(place.order) == 0) return;
  --size_;
  tokens_ -= place.tokens;
  if (queue->second.empty()) queues_.erase(queue);
}

}  // namespace chorus
