#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/check.h"
#include "dist/group.h"

namespace chorus {
namespace {

// What the ranks of one world share. Each collective is: publish a pointer, meet, read the others, meet again.
struct Meeting {
  Meeting(int size, int timeout_ms) : size(size), timeout_ms(timeout_ms), published(static_cast<std::size_t>(size)) {}

  const int size;
  const int timeout_ms;
  std::mutex mutex;
  std::condition_variable changed;
  int arrived = 0;
  std::uint64_t generation = 0;
  bool broken = false;
  std::vector<const float*> published;

  Result<void> meet() {
    std::unique_lock lock(mutex);
    const std::uint64_t mine = generation;
    if (!broken && ++arrived == size) {
      arrived = 0;
      ++generation;
      changed.notify_all();
      return {};
    }
    const auto met = [&] { return broken || generation != mine; };
    if (!changed.wait_for(lock, std::chrono::milliseconds(timeout_ms), met) || generation == mine) {
      broken = true;
      changed.notify_all();
      return fail(ErrorCode::deadline_exceeded, "a rank of a group of {} did not come within {} ms", size, timeout_ms);
    }
    return {};
  }
};

class ThreadGroup final : public Group {
 public:
  ThreadGroup(int rank, std::shared_ptr<Meeting> meeting) : Group(rank, meeting->size), meeting_(std::move(meeting)) {}

  Result<void> all_reduce_tree(std::span<float> data) override {
    CHECK((size() & (size() - 1)) == 0, "the reduction tree needs a power of two, not {} ranks", size());
    meeting_->published[index()] = data.data();
    CHORUS_TRY_VOID(meeting_->meet());
    sums_.resize(data.size());
    for (std::size_t i = 0; i < data.size(); ++i) sums_[i] = tree_sum(i, 0, static_cast<std::size_t>(size()));
    CHORUS_TRY_VOID(meeting_->meet());
    std::copy(sums_.begin(), sums_.end(), data.begin());
    return {};
  }

  Result<void> all_gather(std::span<const float> in, std::span<float> out) override {
    CHECK(in.size() * static_cast<std::size_t>(size()) == out.size(), "all_gather of {} into {} elements", in.size(),
          out.size());
    meeting_->published[index()] = in.data();
    CHORUS_TRY_VOID(meeting_->meet());
    for (std::size_t r = 0; r < meeting_->published.size(); ++r) {
      std::copy_n(meeting_->published[r], in.size(), out.data() + r * in.size());
    }
    return meeting_->meet();
  }

  Result<void> barrier() override { return meeting_->meet(); }

 private:
  std::size_t index() const { return static_cast<std::size_t>(rank()); }
  float tree_sum(std::size_t element, std::size_t first, std::size_t count) const {
    if (count == 1) return meeting_->published[first][element];
    return tree_sum(element, first, count / 2) + tree_sum(element, first + count / 2, count / 2);
  }

  std::shared_ptr<Meeting> meeting_;
  std::vector<float> sums_;
};

}  // namespace

std::vector<std::unique_ptr<Group>> make_thread_groups(int size, int timeout_ms) {
  auto meeting = std::make_shared<Meeting>(size, timeout_ms);
  std::vector<std::unique_ptr<Group>> groups;
  for (int rank = 0; rank < size; ++rank) groups.push_back(std::make_unique<ThreadGroup>(rank, meeting));
  return groups;
}

}  // namespace chorus
