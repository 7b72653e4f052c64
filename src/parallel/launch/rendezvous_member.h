// What a rank publishes of itself in the store. Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace chorus {

inline constexpr std::size_t rendezvous_pairs_max = 256;

struct RendezvousMember {
  std::string node;
  std::int32_t process = 0;
  std::vector<std::pair<std::string, std::string>> fingerprint;  // at most rendezvous_pairs_max
};

std::string encode_member(const RendezvousMember& member);
// Errors: invalid_argument (nothing that a rank of this version writes).
Result<RendezvousMember> decode_member(std::string_view bytes);

}  // namespace chorus
