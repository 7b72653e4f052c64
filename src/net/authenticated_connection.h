// A connection whose every frame carries a tag: HMAC-SHA256 under the direction's session key over the frame's number,
// type, epoch and payload. A frame that was changed, left out, repeated or put elsewhere breaks the connection for good
// (invalid_argument). Frames can be read by whoever listens on the way (docs/decisions/008-frame-authentication.md).
#pragma once

#include <memory>

#include "net/connection.h"
#include "net/handshake.h"

namespace chorus {

// `inner` must accept payloads tag_bytes longer than those of the result: see with_room_for_tags().
std::unique_ptr<Connection> make_authenticated_connection(std::unique_ptr<Connection> inner, const SessionKeys& keys);

ConnectionLimits with_room_for_tags(ConnectionLimits limits);

}  // namespace chorus
