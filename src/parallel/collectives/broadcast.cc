#include <cstring>

#include "parallel/group.h"

namespace chorus {

Result<void> Group::broadcast(std::span<std::byte> data, int root) {
  if (size() == 1) return {};
  if (rank_ != root) return receive(data, root);
  outgoing_.clear();
  for (int r = 0; r < size(); ++r) {
    if (r != root) outgoing_.push_back({member(r), data});
  }
  return transport_->exchange(outgoing_, {});
}

Result<void> Group::broadcast_message(std::string* message, int root, std::size_t bytes_max) {
  if (size() == 1) return {};
  if (rank_ != root) return receive_message(message, root, bytes_max);
  const std::uint64_t bytes = message->size();
  outgoing_.clear();
  for (int r = 0; r < size(); ++r) {
    if (r == root) continue;
    outgoing_.push_back({member(r), std::as_bytes(std::span(&bytes, 1))});
    outgoing_.push_back({member(r), std::as_bytes(std::span(message->data(), message->size()))});
  }
  return transport_->exchange(outgoing_, {});
}

}  // namespace chorus
