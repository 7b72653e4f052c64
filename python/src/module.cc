// chorus._native: the engine for chorus/*.py, which is what users see. Nothing here waits longer than it is told, and
// what takes time releases the GIL.
#include "module.h"

#include <nanobind/stl/string.h>

#include "base/log.h"
#include "raise.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

void read_log_level(const std::string& text) {
  LogLevel level = LogLevel::info;
  if (!parse_log_level(text, &level)) {
    raise(
        fail(ErrorCode::invalid_argument, "the log level is \"{}\"; accepted: debug, info, warning, error, off", text));
  }
  set_log_level(level);
}

}  // namespace
}  // namespace chorus::python

NB_MODULE(_native, module) {
  using namespace chorus::python;
  nb::set_leak_warnings(false);  // what lives until the interpreter ends is no mistake
  module.attr("version") = CHORUS_VERSION;
  module.def("set_log_level", read_log_level, nb::arg("level"),
             "Log lines on stderr from this level on: debug, info, warning, error, off. Raises ValueError.");
  bind_text(module);
  bind_engine(module);
  bind_parameters(module);
  bind_world(module);
}
