#include <algorithm>

#include "base/check.h"
#include "parallel/group.h"

namespace chorus {

Result<void> Group::all_to_all_v(std::span<const std::byte> in, std::span<const std::size_t> to_sizes,
                                 std::span<std::byte> out, std::span<const std::size_t> from_sizes) {
  CHECK(to_sizes.size() == members_.size() && from_sizes.size() == members_.size(), "{} and {} sizes for {} ranks",
        to_sizes.size(), from_sizes.size(), size());
  outgoing_.clear();
  incoming_.clear();
  std::size_t to = 0, from = 0;
  for (int r = 0; r < size(); ++r) {
    const auto sent = in.subspan(to, to_sizes[static_cast<std::size_t>(r)]);
    const auto received = out.subspan(from, from_sizes[static_cast<std::size_t>(r)]);
    to += sent.size();
    from += received.size();
    if (r == rank_) {
      CHECK(sent.size() == received.size(), "{} bytes to itself, {} from itself", sent.size(), received.size());
      std::ranges::copy(sent, received.begin());
      continue;
    }
    if (!sent.empty()) outgoing_.push_back({member(r), sent});
    if (!received.empty()) incoming_.push_back({member(r), received});
  }
  return size() == 1 ? Result<void>() : transport_->exchange(outgoing_, incoming_);
}

}  // namespace chorus
