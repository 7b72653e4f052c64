#include "parallel/group.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace chorus {
namespace {

std::vector<int> all_ranks(int size) {
  std::vector<int> ranks(static_cast<std::size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

}  // namespace

Group::Group(std::shared_ptr<Transport> transport, std::vector<int> members)
    : transport_(std::move(transport)), members_(std::move(members)), pieces_(members_.size()) {
  const int self = transport_ ? transport_->rank() : 0;
  const auto at = std::ranges::find(members_, self);
  CHECK(at != members_.end(), "rank {} is no member of its group of {}", self, members_.size());
  rank_ = static_cast<int>(at - members_.begin());
  CHECK(transport_ != nullptr || members_.size() == 1, "{} ranks and nothing between them", members_.size());
}

Result<bool> Group::wait_for(int peer, int timeout_ms) {
  return transport_->wait_for(member(peer), timeout_ms);
}

std::vector<Group> make_thread_groups(int size, int timeout_ms) {
  const auto world = SharedWorld::create(size);
  CHECK(world.ok(), "{}", world.error().message);
  std::vector<Group> groups;
  for (int rank = 0; rank < size; ++rank) {
    auto joined = world->join(rank, timeout_ms);
    CHECK(joined.ok(), "{}", joined.error().message);
    groups.emplace_back(std::shared_ptr<Transport>(std::move(*joined)), all_ranks(size));
  }
  return groups;
}

}  // namespace chorus
