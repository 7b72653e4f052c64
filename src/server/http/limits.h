// Every bound and deadline of the HTTP side, in one table. A test sets its own.
#pragma once

#include <cstddef>

#include "base/clock.h"

namespace chorus {

inline constexpr Nanoseconds http_second = 1'000'000'000;

struct HttpLimits {
  // Of a request. Beyond them: 431, 431, 414, 413.
  std::size_t head_bytes_max = std::size_t{16} << 10;  // request line and fields
  std::size_t fields_max = 64;
  std::size_t target_bytes_max = std::size_t{8} << 10;
  std::size_t body_bytes_max = std::size_t{4} << 20;
  int json_depth_max = 64;
  // How slow a peer may be. Beyond the first two: 408, and the connection is closed; beyond the others it is closed.
  Nanoseconds head_timeout = 10 * http_second;  // from a head's first byte to its last
  // A body: so many bytes a second on the average, after the first grace.
  std::size_t body_bytes_per_second_min = std::size_t{1} << 10;
  Nanoseconds body_grace = 10 * http_second;
  Nanoseconds idle_timeout = 60 * http_second;         // no request is there
  Nanoseconds write_stall_timeout = 30 * http_second;  // there is something to send, and the peer takes nothing
  Nanoseconds linger_timeout = 2 * http_second;        // after the last answer, for the peer to close
  // What an answer may have waiting here before its writer is told that there is no room (Exchange::has_room).
  std::size_t send_buffer_bytes = std::size_t{256} << 10;
  // What is read ahead behind a request that is being answered. A peer that sends more is not read, and so not watched,
  // until then.
  std::size_t read_ahead_bytes_max = std::size_t{64} << 10;
  std::size_t held_bytes_max = std::size_t{256} << 20;  // of all connections' unfinished requests; beyond: 503
  std::size_t connections_max = 16384;                  // beyond: 503
  Nanoseconds sweep_interval = http_second / 5;         // how often the deadlines are looked at
};

}  // namespace chorus
