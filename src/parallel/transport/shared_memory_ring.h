// The two ends of a ring of bytes between two ranks. Private to this room.
//
// Each end keeps its own index in private memory and reads only the other's from the shared one, so a peer can at worst
// send wrong bytes; an index that cannot be right makes the end corrupt, which moves nothing any more.
//
// The indices are stored and loaded in the one order of sequential consistency, together with the `asleep` flags: a
// rank says that it sleeps and then looks at the ring once more, its peer moves the ring and then looks whether it
// sleeps; one of the two sees the other.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>

#include "parallel/transport/shared_memory.h"

namespace chorus {

class RingWriter {
 public:
  RingWriter(RingControl* control, std::byte* bytes, std::size_t capacity)
      : control_(control), bytes_(bytes), capacity_(capacity) {}

  // Copies what fits of `from` and returns how many bytes that were.
  std::size_t write(std::span<const std::byte> from) {
    if (written_ + from.size() - read_ > capacity_) read_ = control_->read.load();
    if (corrupt()) return 0;
    const std::size_t count = std::min<std::size_t>(from.size(), capacity_ - (written_ - read_));
    if (count == 0) return 0;
    const std::size_t at = written_ & (capacity_ - 1), first = std::min(count, capacity_ - at);
    std::memcpy(bytes_ + at, from.data(), first);
    std::memcpy(bytes_, from.data() + first, count - first);
    written_ += count;
    control_->written.store(written_);
    return count;
  }
  bool corrupt() const { return written_ - read_ > capacity_; }

 private:
  RingControl* control_;
  std::byte* bytes_;
  std::size_t capacity_;  // a power of two
  std::uint64_t written_ = 0;
  std::uint64_t read_ = 0;  // as last seen
};

class RingReader {
 public:
  RingReader(RingControl* control, const std::byte* bytes, std::size_t capacity)
      : control_(control), bytes_(bytes), capacity_(capacity) {}

  std::size_t read(std::span<std::byte> to) {
    const std::size_t count = std::min<std::size_t>(to.size(), available(to.size()));
    if (count == 0) return 0;
    const std::size_t at = read_ & (capacity_ - 1), first = std::min(count, capacity_ - at);
    std::memcpy(to.data(), bytes_ + at, first);
    std::memcpy(to.data() + first, bytes_, count - first);
    read_ += count;
    control_->read.store(read_);
    return count;
  }
  // Bytes that can be read, at least; looked up anew when fewer than `wanted` were known.
  std::size_t available(std::size_t wanted) {
    if (written_ - read_ < wanted) written_ = control_->written.load();
    return corrupt() ? 0 : written_ - read_;
  }
  bool corrupt() const { return written_ - read_ > capacity_; }

 private:
  RingControl* control_;
  const std::byte* bytes_;
  std::size_t capacity_;
  std::uint64_t read_ = 0;
  std::uint64_t written_ = 0;  // as last seen
};

}  // namespace chorus
