#include "kernels/attention_impl.h"

namespace chorus {

const AttentionKernels& attention_kernels_scalar() {
  return CHORUS_VECTOR_NAMESPACE::attention_kernels;
}

}  // namespace chorus
