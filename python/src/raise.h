// From a Result to Python: its value, or the exception that its code stands for.
#pragma once

#include <utility>

#include "base/result.h"

namespace chorus::python {

// invalid_argument: ValueError; not_found: FileNotFoundError; deadline_exceeded: TimeoutError; cancelled, unavailable,
// resource_exhausted, internal: RuntimeError. With the GIL.
[[noreturn]] void raise(const Error& error);

template <typename T>
T value_or_raise(Result<T> result) {
  if (!result.ok()) raise(result.error());
  return std::move(result).value();
}
inline void raise_unless_ok(const Result<void>& result) {
  if (!result.ok()) raise(result.error());
}

}  // namespace chorus::python
