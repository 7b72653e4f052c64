// What a rank tells the others of its TcpDoor. Private to this room.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "net/authentication.h"

namespace chorus {

inline constexpr std::size_t tcp_token_bytes = 16;

struct TcpContact {
  std::string address;  // in numbers
  int port = 0;
  std::string token;  // random; a caller brings it
};

// With a key the contact bears a tag under it, so that ranks with different keys refuse each other before they wait for
// connections that cannot come. It proves nothing more: the handshake of each connection does.
std::string encode_contact(const TcpContact& contact, const ClusterKey* key);
// Errors: invalid_argument (no contact; made under another key, or with one where this process has none, or without).
Result<TcpContact> decode_contact(std::string_view bytes, const ClusterKey* key);

}  // namespace chorus
