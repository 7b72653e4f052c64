#include "kernels/sample_impl.h"

namespace chorus {

const SamplePasses& sample_passes_scalar() {
  return CHORUS_VECTOR_NAMESPACE::sample_passes;
}

}  // namespace chorus
