#include <algorithm>

#include "base/check.h"
#include "kernels/linear_cuda.h"

namespace chorus {

void pack_linear_cuda(const std::uint16_t* w, std::int32_t rows, std::int32_t columns, std::int32_t segments,
                      std::uint16_t* out) {
  CHECK(segments > 0 && columns % segments == 0, "{} columns in {} segments", columns, segments);
  const std::int64_t atoms = cuda_linear_atoms(columns, segments), atoms_of_segment = atoms / segments;
  const std::int64_t segment_columns = columns / segments;
  std::fill_n(out, packed_linear_cuda_elements(rows, columns, segments), std::uint16_t{0});
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t atom = 0; atom < atoms; ++atom) {
      const std::int64_t in_segment = atom % atoms_of_segment * cuda_atom_columns;
      const std::int64_t column = atom / atoms_of_segment * segment_columns + in_segment;
      const std::int64_t count = std::min<std::int64_t>(cuda_atom_columns, segment_columns - in_segment);
      std::copy_n(w + row * columns + column, count,
                  out + ((row / 8 * atoms + atom) * 8 + row % 8) * cuda_atom_columns);
    }
  }
}

}  // namespace chorus
