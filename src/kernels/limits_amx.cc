#include "kernels/amx_tiles.h"
#include "kernels/limits_loops.h"

namespace chorus {

// The four products of a step of linear_tiles.h.
double multiply_add_amx(std::int64_t steps) {
  AmxTiles::configure();
  for (std::int64_t step = 0; step < steps; ++step) {
    AmxTiles::dot<0, 4, 6>();
    AmxTiles::dot<1, 4, 7>();
    AmxTiles::dot<2, 5, 6>();
    AmxTiles::dot<3, 5, 7>();
  }
  AmxTiles::release();
  return 2.0 * 4 * 16 * 16 * 32 * static_cast<double>(steps);
}

}  // namespace chorus
