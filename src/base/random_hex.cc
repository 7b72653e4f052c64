#include "base/random_hex.h"

#include <fmt/ranges.h>
#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace chorus {

Result<std::string> random_hex(std::size_t bytes) {
  std::vector<unsigned char> random(bytes);
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return fail(ErrorCode::internal, "getrandom: {}", std::strerror(errno));
  }
  return fmt::format("{:02x}", fmt::join(random, ""));
}

}  // namespace chorus
