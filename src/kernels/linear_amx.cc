#include "kernels/amx_tiles.h"
#include "kernels/linear_tiles.h"

namespace chorus {

const LinearKernel& linear_kernel_amx() {
  return linear_kernel_tiles<AmxTiles>;
}

}  // namespace chorus
