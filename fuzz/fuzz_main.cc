// One target with libFuzzer: CHORUS_FUZZ_TARGET is its function.
#include "targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  chorus::fuzz::CHORUS_FUZZ_TARGET({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
