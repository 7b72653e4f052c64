// What this program is: its release and the numerics profiles that it can compute with here.
#pragma once

#include <string>
#include <vector>

#include "kernels/isa.h"
#include "tensor/dtype.h"

namespace chorus {

std::string version();  // "0.1.0"

// "avx512-bf16/bfloat16": instruction set and dtype. The same profile gives the same bits on any machine.
std::string numerics_profile(Isa isa, DType dtype);

// The dtypes that --dtype takes.
std::vector<DType> compute_dtypes();

// Of `chorus --version`: the release, and the profile that --cpu-isa auto means here for each dtype.
std::string version_text();

}  // namespace chorus
