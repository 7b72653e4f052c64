// What the tests of the linear kernels share: random matrices, packing, and a reference with an error bound.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/linear.h"
#include "tensor/scratch.h"

namespace chorus {

// 64-byte aligned bytes.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t bytes) : memory_(bytes + 64) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    data_ = memory_.data() + (64 - address % 64) % 64;
  }
  std::byte* data() { return data_; }

 private:
  std::vector<std::byte> memory_;
  std::byte* data_ = nullptr;
};

inline std::vector<float> random_floats(std::int64_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = uniform(generator);
  return values;
}

// A source matrix in a checkpoint's dtype, row-major; columns [column, ...) of it are what is packed.
struct SourceMatrix {
  DType dtype = DType::bfloat16;
  std::int64_t columns = 0, first_column = 0;
  std::vector<std::byte> bytes;

  SourceMatrix(DType dtype, std::int64_t rows, std::int64_t columns, std::uint32_t seed)
      : dtype(dtype), columns(columns) {
    bytes.resize(static_cast<std::size_t>(rows * columns) * bytes_of(dtype));
    const std::vector<float> values = random_floats(rows * columns, seed);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::float32) std::memcpy(&bytes[i * 4], &values[i], 4);
      // In binary16: 1.mantissa * 2^-1 with the random bits of the value.
      const std::uint16_t half =
          static_cast<std::uint16_t>(0x3800U | (std::bit_cast<std::uint32_t>(values[i]) >> 8 & 0x83ffU));
      const std::uint16_t brain = to_bfloat16(values[i]);
      if (dtype == DType::bfloat16) std::memcpy(&bytes[i * 2], &brain, 2);
      if (dtype == DType::float16) std::memcpy(&bytes[i * 2], &half, 2);
    }
  }
  float at(std::int64_t row, std::int64_t column) const {
    return load_as_float(bytes.data(), dtype, static_cast<std::size_t>(row * columns + first_column + column));
  }
  static SourceRows row_source(const void* context, std::int64_t row) {
    const auto* matrix = static_cast<const SourceMatrix*>(context);
    const std::int64_t element_bytes = static_cast<std::int64_t>(bytes_of(matrix->dtype));
    const std::int64_t element = row * matrix->columns + matrix->first_column;
    return {matrix->bytes.data() + element * element_bytes, matrix->dtype, matrix->columns};
  }
};

// Packed weights and their memory.
struct PackedMatrix {
  std::unique_ptr<AlignedBytes> bytes;
  PackedLinear view;

  PackedMatrix(Isa isa, LinearFormat format, const LinearShape& shape, const SourceMatrix& source)
      : bytes(std::make_unique<AlignedBytes>(packed_linear_bytes(isa, format, shape))),
        view{shape, format, isa, bytes->data()} {
    const std::int64_t rows = linear_panel_rows(isa, format);
    for (std::int64_t panel = 0; panel * rows < shape.rows; ++panel) {
      pack_linear_panel(isa, format, shape, panel, SourceMatrix::row_source, &source, bytes->data());
    }
  }
};

// Whether y is x W^T within the rounding of float32 sums: |error| <= gamma_n sum |x| |w| (Higham, "Accuracy and
// Stability of Numerical Algorithms", section 3.1), n columns plus the tree and the epilogue; `x_rounding` is the
// relative rounding of x that the kernel makes first (bfloat16: 2^-8).
inline bool is_product(const float* y, std::int64_t ldy, const float* x, std::int64_t m, std::int64_t ldx,
                       const PackedLinear& weight, double x_rounding) {
  const double u = 0x1p-24, n = static_cast<double>(weight.shape.columns) + 8;
  const double relative = n * u / (1 - n * u) + x_rounding * (1 + n * u);
  std::vector<float> w(static_cast<std::size_t>(weight.shape.columns));
  for (std::int64_t row = 0; row < weight.shape.rows; ++row) {
    unpack_linear_row(weight, row, w.data());
    for (std::int64_t i = 0; i < m; ++i) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < weight.shape.columns; ++k) {
        const double product =
            static_cast<double>(x[i * ldx + k]) * static_cast<double>(w[static_cast<std::size_t>(k)]);
        sum += product;
        magnitude += std::abs(product);
      }
      if (!(std::abs(static_cast<double>(y[i * ldy + row]) - sum) <= relative * magnitude)) return false;
    }
  }
  return true;
}

}  // namespace chorus
