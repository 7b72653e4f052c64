// The matrices that quantised folders have, in the forms that their formats store them in. What is made here was
// checked: every part is there and has the bytes that the sizes ask for (quantized_parts.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/dtype.h"
#include "weights/checkpoint.h"

namespace chorus {

// How integers of 4 or 8 bits lie. Words are of 32 bits, little-endian, and have their integers from the lowest bits
// on.
enum class IntegerLayout : std::uint8_t {
  down,         // word [column / n][row]: n integers of one row. GPTQ's qweight
  across,       // word [column][row / n]: of n rows. GPTQ's qzeros, with groups as columns
  interleaved,  // as `across`, with row 8 i + j in the place that 0, 4, 1, 5, 2, 6, 3, 7 has at j. AWQ
  along,        // word [row][column / n]: of n columns. compressed-tensors' weight_packed
  stacked,      // word [row / n][column]: of n rows. compressed-tensors' weight_zero_point
  bytes,        // [row][column], signed bytes
};

struct Integers {
  const std::byte* data = nullptr;
  IntegerLayout layout = IntegerLayout::bytes;
  int bits = 8;
  std::int64_t rows = 0, columns = 0;

  // `count` of a row, from column `first` on.
  void read(std::int64_t row, std::int64_t first, std::int64_t count, int* out) const;
  int at(std::int64_t row, std::int64_t column) const {
    int code = 0;
    read(row, column, 1, &code);
    return code;
  }
};

// One float of `dtype` a row and group, `row_step` and `group_step` elements apart; 0: the same for all.
struct Scales {
  const std::byte* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t row_step = 0, group_step = 0;

  float at(std::int64_t row, std::int64_t group) const {
    return load_as_float(data, dtype, static_cast<std::size_t>(row * row_step + group * group_step));
  }
};

// s (q - z): s and z of the row and the group that its column is in.
struct IntegerParts {
  Integers codes;
  Scales scales;
  Integers zeros;  // data null: `zero` is that of all
  int zero = 0;    // added to what `zeros` has
  std::int64_t group_columns = 0;
  std::vector<std::int32_t> group_of_column;  // empty: column / group_columns

  int zero_at(std::int64_t row, std::int64_t group) const {
    return zeros.data == nullptr ? zero : zeros.at(row, group) + zero;
  }
};
// In groups where neighbours share a scale in 16 bits and a format has the numbers: 4 bits int4 where all zero points
// are 8, else int4_zero; 8 bits int8 where the codes less their zero point are signed bytes. Scales in bfloat16 below
// 2^-17 or above 65504 are rounded to binary16 there.
SharedQuantizedMatrix make_integer_matrix(IntegerParts parts);

// E4M3 (OCP 8-bit Floating Point Specification, section 5: no infinities, 0x7f and 0xff NaN) times a scale for each
// block. `group_step` of the scales counts blocks of columns, `row_step` of rows.
struct Fp8Parts {
  const std::byte* codes = nullptr;  // [rows][columns]
  std::int64_t rows = 0, columns = 0;
  std::int64_t block_rows = 0, block_columns = 0;
  Scales scales;
  bool has_power_scales = false;  // E8M0: a byte b is 2^(b - 127)
};
SharedQuantizedMatrix make_fp8_matrix(const Fp8Parts& parts);

// OCP Microscaling MXFP4, as gpt-oss has its experts: [rows][columns / 32] blocks of 16 bytes, column 2 i in the low
// half of byte i and 2 i + 1 in the high one, and as many E8M0 scales. In groups int8: twice an element is an integer.
// Scales below 2^-23 are rounded there, and above 2^16 infinite.
SharedQuantizedMatrix make_mxfp4_matrix(const std::byte* blocks, const std::byte* scales, std::int64_t rows,
                                        std::int64_t columns);

}  // namespace chorus
