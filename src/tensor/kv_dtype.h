// What keys and values are stored as.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace chorus {

// Floats, or codes of 8 bits with a scale for each row of a head (kernels/attention.h says what they stand for).
enum class KvDType : std::uint8_t { float32, bfloat16, int8 };

constexpr const char* name_of(KvDType dtype) {
  switch (dtype) {
    case KvDType::float32:
      return "float32";
    case KvDType::bfloat16:
      return "bfloat16";
    case KvDType::int8:
      return "int8";
  }
  return "unknown";
}

// Of the keys (or values) of one head of one token.
constexpr std::size_t kv_row_bytes(KvDType dtype, std::size_t head_dim) {
  switch (dtype) {
    case KvDType::float32:
      return head_dim * sizeof(float);
    case KvDType::bfloat16:
      return head_dim * sizeof(Bfloat16);
    case KvDType::int8:
      return head_dim + sizeof(float);
  }
  return 0;
}

// As the computation's own type, bfloat16 or float32.
constexpr KvDType kv_dtype_of(DType dtype) {
  return dtype == DType::bfloat16 ? KvDType::bfloat16 : KvDType::float32;
}

}  // namespace chorus
