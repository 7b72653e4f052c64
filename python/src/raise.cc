#include "raise.h"

#include <nanobind/nanobind.h>

namespace chorus::python {
namespace {

PyObject* exception_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return PyExc_ValueError;
    case ErrorCode::not_found:
      return PyExc_FileNotFoundError;
    case ErrorCode::deadline_exceeded:
      return PyExc_TimeoutError;
    default:
      return PyExc_RuntimeError;
  }
}

}  // namespace

void raise(const Error& error) {
  PyErr_SetString(exception_of(error.code), error.message.c_str());
  throw nanobind::python_error();
}

}  // namespace chorus::python
