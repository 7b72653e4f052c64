// Packing of matrices in groups, as linear_pack.cc calls it.
#pragma once

#include "kernels/linear.h"

namespace chorus {

// A group of `count` floats; what is beyond them stands for 0. NaN and infinities make a scale that is NaN.
LinearGroup quantise_group(LinearFormat::Kind kind, const float* values, int count);

// As pack_linear_panel() and unpack_linear_row(); `out` begins at the panel, `data` at the matrix.
void pack_group_panel(LinearFormat::Kind kind, const LinearShape& shape, std::int64_t panel, RowSource row_source,
                      const void* context, std::byte* out);
void unpack_group_row(LinearFormat::Kind kind, const LinearShape& shape, const std::byte* data, std::int64_t row,
                      float* out);

}  // namespace chorus
