#include <algorithm>

#include "base/check.h"
#include "parallel/group.h"

namespace chorus {

Result<void> Group::all_gather_bytes(std::span<const std::byte> in, std::span<std::byte> out) {
  CHECK(in.size() * members_.size() == out.size(), "all_gather of {} bytes of {} ranks into {}", in.size(), size(),
        out.size());
  sizes_.assign(members_.size(), in.size());
  return all_gather_v(in, sizes_, out);
}

Result<void> Group::all_gather_v(std::span<const std::byte> in, std::span<const std::size_t> sizes,
                                 std::span<std::byte> out) {
  CHECK(sizes.size() == members_.size() && in.size() == sizes[static_cast<std::size_t>(rank_)],
        "all_gather_v of {} bytes, {} sizes", in.size(), sizes.size());
  outgoing_.clear();
  incoming_.clear();
  std::size_t offset = 0;
  for (int r = 0; r < size(); ++r) {
    const std::size_t bytes = sizes[static_cast<std::size_t>(r)];
    const auto part = out.subspan(offset, bytes);
    offset += bytes;
    if (r == rank_) {
      if (part.data() != in.data()) std::ranges::copy(in, part.begin());
      continue;
    }
    outgoing_.push_back({member(r), in});
    incoming_.push_back({member(r), part});
  }
  return size() == 1 ? Result<void>() : transport_->exchange(outgoing_, incoming_);
}

}  // namespace chorus
