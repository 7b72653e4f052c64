// What this program is: its release and the numerics profiles that it can compute with here.
#pragma once

#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace chorus {

std::string version();  // "0.1.0"

// The dtypes that --dtype takes.
std::vector<DType> compute_dtypes();

// Of `chorus --version`: the release, and the profile that --cpu-isa auto means here for each dtype.
std::string version_text();

}  // namespace chorus
