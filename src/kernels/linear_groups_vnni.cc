#include "kernels/vnni.h"

#include "kernels/linear_groups_vector.h"

namespace chorus {

const LinearKernel& group_kernel_vnni() {
  return linear_kernel_groups<Vnni>;
}

}  // namespace chorus
