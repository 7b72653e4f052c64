// A matrix in the memory of a device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tensor/dtype.h"

namespace chorus {

enum class DeviceKind : std::uint8_t { cpu, cuda };

// Row-major; owns nothing. Element (r, c) is at index r * stride + c. What `data` points to is the device's: host code
// follows it where device is cpu.
struct View {
  std::byte* data = nullptr;
  DType dtype = DType::float32;
  std::int64_t rows = 0, columns = 0, stride = 0;  // stride: elements between rows
  DeviceKind device = DeviceKind::cpu;

  // The first element, of the type that dtype names.
  float* floats() const { return as<float>(DType::float32); }
  Bfloat16* bfloats() const { return as<Bfloat16>(DType::bfloat16); }
  View rows_from(std::int64_t first, std::int64_t count) const { return part(first, 0, count, columns); }
  View columns_from(std::int64_t first, std::int64_t count) const { return part(0, first, rows, count); }

 private:
  template <typename T>
  T* as(DType wanted) const {
    CHECK(dtype == wanted, "a view of {} read as {}", name_of(dtype), name_of(wanted));
    return reinterpret_cast<T*>(data);
  }
  View part(std::int64_t row, std::int64_t column, std::int64_t row_count, std::int64_t column_count) const {
    View view = *this;
    view.data += (row * stride + column) * static_cast<std::int64_t>(bytes_of(dtype));
    view.rows = row_count;
    view.columns = column_count;
    return view;
  }
};

// Of float32 in this process's memory.
inline View view_of(float* data, std::int64_t rows, std::int64_t columns) {
  return {reinterpret_cast<std::byte*>(data), DType::float32, rows, columns, columns, DeviceKind::cpu};
}

}  // namespace chorus
