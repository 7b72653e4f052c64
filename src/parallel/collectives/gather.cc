#include <algorithm>

#include "base/check.h"
#include "parallel/group.h"

namespace chorus {

Result<void> Group::gather_v(std::span<const std::byte> in, std::span<const std::size_t> sizes,
                             std::span<std::byte> out, int root) {
  CHECK(sizes.size() == members_.size() && in.size() == sizes[static_cast<std::size_t>(rank_)],
        "gather_v of {} bytes, {} sizes", in.size(), sizes.size());
  if (rank_ != root) return send(in, root);
  incoming_.clear();
  std::size_t offset = 0;
  for (int r = 0; r < size(); ++r) {
    const auto part = out.subspan(offset, sizes[static_cast<std::size_t>(r)]);
    offset += part.size();
    if (r == rank_) {
      std::ranges::copy(in, part.begin());
    } else {
      incoming_.push_back({member(r), part});
    }
  }
  return size() == 1 ? Result<void>() : transport_->exchange({}, incoming_);
}

}  // namespace chorus
