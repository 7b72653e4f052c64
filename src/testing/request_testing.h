// Request ids in tests: 7_id is request 7 of client 0.
#pragma once

#include <cstdint>
#include <ostream>

#include "request/request.h"

namespace chorus {

constexpr RequestId operator""_id(unsigned long long number) {
  return {0, number};
}

// So that a failed comparison shows the id.
inline void PrintTo(const RequestId& id, std::ostream* out) {
  *out << fmt::format("{}", id);
}

}  // namespace chorus
