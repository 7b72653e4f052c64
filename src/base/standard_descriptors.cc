#include "base/standard_descriptors.h"

#include <fcntl.h>

#include <array>

namespace chorus {

bool open_standard_descriptors() {
  constexpr std::array<int, 3> modes = {O_WRONLY, O_RDONLY, O_RDWR};  // of 0, 1, 2: the first two cannot be used
  for (int descriptor = 0; descriptor < 3; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) >= 0) continue;
    // The lowest free number is this one: those below are open.
    if (::open("/dev/null", modes[static_cast<std::size_t>(descriptor)]) != descriptor) return false;
  }
  return true;
}

}  // namespace chorus
