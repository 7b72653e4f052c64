// What two processes on different machines use to prove to each other that they belong to one cluster: a key that both
// read from a file, and HMAC-SHA256 (RFC 2104) of OpenSSL.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace chorus {

inline constexpr std::size_t cluster_key_bytes_min = 32;
inline constexpr std::size_t cluster_key_bytes_max = 4096;
inline constexpr std::size_t tag_bytes = 32;
inline constexpr const char* how_to_make_a_key =
    "make one with: (umask 077; openssl rand -hex 32 > FILE), and copy it to every node";

// The secret of a cluster. Wiped from memory at its end.
class ClusterKey {
 public:
  // The whole file, byte for byte. Refuses one that others than its owner may read or write, that is no regular file,
  // or that has not cluster_key_bytes_min to cluster_key_bytes_max bytes; says how to make one.
  static Result<std::shared_ptr<const ClusterKey>> read(const std::string& path);
  explicit ClusterKey(std::string bytes) : bytes_(std::move(bytes)) {}
  ClusterKey(const ClusterKey&) = delete;
  ClusterKey& operator=(const ClusterKey&) = delete;
  ~ClusterKey();
  std::string_view bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// HMAC-SHA256 under one key, for many messages.
class Hmac {
 public:
  explicit Hmac(std::string_view key);
  Hmac(Hmac&&) noexcept;
  Hmac& operator=(Hmac&&) noexcept;
  ~Hmac();
  // Of the parts, one after the other.
  void tag(std::initializer_list<std::string_view> parts, std::span<char, tag_bytes> into);
  std::string tag(std::initializer_list<std::string_view> parts);
  // Whether `tag` is theirs. Takes the same time wherever it differs.
  bool verify(std::initializer_list<std::string_view> parts, std::string_view tag);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// SHA-256, for fingerprints. In hexadecimal digits.
std::string sha256_hex(std::initializer_list<std::string_view> parts);

// Takes the same time wherever the difference is.
bool equal_in_constant_time(std::string_view left, std::string_view right);

// From the system's generator.
std::string random_bytes(std::size_t count);

}  // namespace chorus
