// What references made by Python's zlib are compared by.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chorus {

// CRC-32 as zlib has it (IEEE 802.3, reflected), a bit at a time.
inline std::uint32_t crc32(const std::byte* data, std::size_t bytes) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (std::size_t i = 0; i < bytes; ++i) {
    crc ^= std::to_integer<std::uint32_t>(data[i]);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

}  // namespace chorus
