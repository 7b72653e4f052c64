// How many times longer a test may take in an instrumented build: deadlines of tests are multiplied by it. What a test
// measures of memory or of address space has no such factor and is left out under a sanitizer.
#pragma once

namespace chorus {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int slowness = 30;
#else
inline constexpr int slowness = 1;
#endif

}  // namespace chorus
