// How the elements of a packed matrix are stored: as floats of a DType, or as integers in groups (docs/numerics.md,
// "Integer products").
//
// Groups. A row of a segment is cut into groups of 32 neighbouring columns (the last one of a segment may have fewer).
// A group has a scale s in binary16, int4_minimum a minimum m too, int4_zero a zero point z; column k of it stands for
//   int8          s q           q in [-128, 127]
//   int4          s (q - 8)     q in [0, 15]
//   int4_minimum  s q + m       q in [0, 15]
//   int4_zero     s (q - z)     q in [0, 15], z an integer in [0, 16]; -z is kept as the minimum in units of s
// The first three are the blocks of GGUF's Q8_0, Q4_0 and Q4_1 (ggml-org/ggml, src/ggml-common.h), whose numbers are
// kept; the last is what GPTQ, AWQ and compressed-tensors have without symmetry.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace chorus {

struct LinearFormat {
  enum Kind : std::uint8_t { plain, int8, int4, int4_minimum, int4_zero } kind = plain;
  DType dtype = DType::bfloat16;  // of plain elements: float32 or bfloat16

  constexpr LinearFormat() = default;
  constexpr LinearFormat(DType dtype) : dtype(dtype) {}
  constexpr LinearFormat(Kind kind) : kind(kind) {}
  constexpr bool in_groups() const { return kind != plain; }
  constexpr bool operator==(const LinearFormat&) const = default;
};

constexpr auto enumeration_of(LinearFormat::Kind) {
  return Enumeration{"a format in groups", LinearFormat::int4_zero};
}

// Whether a group has a second number beside its scale.
constexpr bool has_minimum(LinearFormat::Kind kind) {
  return kind == LinearFormat::int4_minimum || kind == LinearFormat::int4_zero;
}

// Whether groups of `from` are groups of `to` with other codes and the same numbers.
constexpr bool holds_groups_of(LinearFormat::Kind to, LinearFormat::Kind from) {
  if (to == from) return true;
  if (from == LinearFormat::int4) return to == LinearFormat::int4_zero || to == LinearFormat::int8;
  return from == LinearFormat::int4_zero && to == LinearFormat::int8;
}

constexpr const char* name_of(LinearFormat format) {
  switch (format.kind) {
    case LinearFormat::plain:
      return name_of(format.dtype);
    case LinearFormat::int8:
      return "int8";
    case LinearFormat::int4:
      return "int4";
    case LinearFormat::int4_minimum:
      return "int4 with minimum";
    case LinearFormat::int4_zero:
      return "int4 with zero point";
  }
  return "unknown";
}

inline constexpr int group_columns = 32;

// One group of one row, as it is packed: q as above, the scale and the minimum (-z of int4_zero, else 0) in binary16.
struct LinearGroup {
  std::int8_t codes[group_columns] = {};
  std::uint16_t scale = 0, minimum = 0;
};

// A matrix whose rows can be had as groups, however it is stored. Any number of threads.
class LinearGroups {
 public:
  virtual ~LinearGroups() = default;
  // The group that begins at column `first` of the row, as `kind` has it, which must hold its numbers.
  virtual LinearGroup read(std::int64_t row, std::int64_t first, LinearFormat::Kind kind) const = 0;
};

}  // namespace chorus
