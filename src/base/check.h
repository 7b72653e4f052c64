// CHECK(condition, "format", values...): a broken invariant ends the process with its values. A supervisor is there for
// that; going on with a wrong state would break the promise silently. Never for input that a user or a peer controls.
#pragma once

#include <fmt/format.h>

#include <string>

namespace chorus {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace chorus

#define CHECK(condition, ...)                                                                \
  do {                                                                                       \
    if (!(condition)) [[unlikely]]                                                           \
      ::chorus::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
  } while (false)
