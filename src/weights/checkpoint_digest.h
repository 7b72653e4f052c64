// What tells one checkpoint from another (Checkpoint::digest).
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chorus {

// Of names, element types, shapes and a sample of each tensor's bytes. FNV-1a: the same in every build.
class CheckpointDigest {
 public:
  void add(std::string_view name, std::string_view type, const std::vector<std::int64_t>& shape,
           std::span<const std::byte> bytes) {
    add(fmt::format("{} {} [{}];", name, type, fmt::join(shape, ", ")));
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::size_t last = text.size() - std::min(text.size(), sample_bytes);
    for (std::size_t i = 0; i < samples; ++i) {
      add(text.substr(last / (samples - 1) * i, sample_bytes));
      if (last == 0) break;
    }
    add(text.substr(last));
    total_ += text.size();
    ++tensors_;
  }
  std::string text() const { return fmt::format("{} bytes in {} tensors, {:016x}", total_, tensors_, hash_); }

 private:
  static constexpr std::size_t sample_bytes = 1024, samples = 64;  // of a tensor, from its first byte to its last
  void add(std::string_view bytes) {
    for (const char byte : bytes) hash_ = (hash_ ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  }

  std::uint64_t hash_ = 0xcbf29ce484222325, total_ = 0;
  std::size_t tensors_ = 0;
};

}  // namespace chorus
