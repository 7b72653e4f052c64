// SipHash-2-4 with 128 bits of output: Aumasson, Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012, and the
// authors' reference implementation for the 128-bit variant. Keyed, so that who does not know the key cannot choose
// inputs that collide.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace chorus {

struct Hash128 {
  std::uint64_t low = 0, high = 0;
  bool operator==(const Hash128&) const = default;
};

// Fed in 64-bit little-endian words; the same value as hashing the bytes.
class SipHash128 {
 public:
  explicit constexpr SipHash128(const std::array<std::uint64_t, 2>& key)
      : v0_(key[0] ^ 0x736f6d6570736575ULL),
        v1_(key[1] ^ 0x646f72616e646f6dULL ^ 0xee),
        v2_(key[0] ^ 0x6c7967656e657261ULL),
        v3_(key[1] ^ 0x7465646279746573ULL) {}

  constexpr void add(std::uint64_t word) {
    bytes_ += 8;
    absorb(word);
  }

  // `tail`: the last tail_bytes (0..7) bytes, low ones first.
  constexpr Hash128 finish(std::uint64_t tail = 0, std::uint64_t tail_bytes = 0) {
    absorb(((bytes_ + tail_bytes) << 56) | tail);
    v2_ ^= 0xee;
    for (int i = 0; i < 4; ++i) round();
    const std::uint64_t low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    for (int i = 0; i < 4; ++i) round();
    return {low, v0_ ^ v1_ ^ v2_ ^ v3_};
  }

 private:
  static constexpr std::uint64_t rotate(std::uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }
  constexpr void absorb(std::uint64_t word) {
    v3_ ^= word;
    round();
    round();
    v0_ ^= word;
  }
  constexpr void round() {
    v0_ += v1_, v1_ = rotate(v1_, 13) ^ v0_, v0_ = rotate(v0_, 32);
    v2_ += v3_, v3_ = rotate(v3_, 16) ^ v2_;
    v0_ += v3_, v3_ = rotate(v3_, 21) ^ v0_;
    v2_ += v1_, v1_ = rotate(v1_, 17) ^ v2_, v2_ = rotate(v2_, 32);
  }

  std::uint64_t v0_, v1_, v2_, v3_;
  std::uint64_t bytes_ = 0;
};

constexpr Hash128 siphash128(const std::array<std::uint64_t, 2>& key, std::span<const unsigned char> bytes) {
  SipHash128 hash(key);
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    word |= std::uint64_t{bytes[i]} << (8 * (i % 8));
    if (i % 8 == 7) hash.add(word), word = 0;
  }
  return hash.finish(word, bytes.size() % 8);
}

// The same value of bytes that come in pieces, however they are cut.
class ByteHash {
 public:
  explicit ByteHash(const std::array<std::uint64_t, 2>& key) : hash_(key) {}

  void add(std::string_view bytes) {
    static_assert(std::endian::native == std::endian::little);
    while (!bytes.empty() && (tail_bytes_ != 0 || bytes.size() < sizeof(std::uint64_t))) {
      tail_ |= std::uint64_t{static_cast<unsigned char>(bytes.front())} << (8 * tail_bytes_);
      bytes.remove_prefix(1);
      if (++tail_bytes_ < sizeof(std::uint64_t)) continue;
      hash_.add(tail_);
      tail_ = tail_bytes_ = 0;
    }
    for (; bytes.size() >= sizeof(std::uint64_t); bytes.remove_prefix(sizeof(std::uint64_t))) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data(), sizeof(word));
      hash_.add(word);
    }
    if (!bytes.empty()) add(bytes);
  }

  Hash128 value() const {  // of all bytes so far
    SipHash128 hash = hash_;
    return hash.finish(tail_, tail_bytes_);
  }

 private:
  SipHash128 hash_;
  std::uint64_t tail_ = 0, tail_bytes_ = 0;  // bytes that make no word yet, low ones first
};

}  // namespace chorus
