#include <algorithm>

#include "base/check.h"
#include "dist/group.h"

namespace chorus {
namespace {

class SelfGroup final : public Group {
 public:
  SelfGroup() : Group(0, 1) {}
  Result<void> all_reduce_tree(std::span<float>) override { return {}; }
  Result<void> all_gather(std::span<const float> in, std::span<float> out) override {
    CHECK(in.size() == out.size(), "all_gather of {} into {} elements", in.size(), out.size());
    std::copy(in.begin(), in.end(), out.begin());
    return {};
  }
  Result<void> barrier() override { return {}; }
};

}  // namespace

std::unique_ptr<Group> make_self_group() {
  return std::make_unique<SelfGroup>();
}

}  // namespace chorus
