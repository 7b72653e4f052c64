#include "kernels/elementwise_impl.h"

namespace chorus {

const ElementwiseKernels& elementwise_kernels_scalar() {
  return CHORUS_VECTOR_NAMESPACE::elementwise_kernels;
}

}  // namespace chorus
