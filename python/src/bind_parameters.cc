// A rank's weights as numpy arrays.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <memory>

#include "engine.h"
#include "module.h"
#include "parameter_reader.h"
#include "raise.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

std::unique_ptr<ParameterReader> open_reader(const Engine& engine) {
  std::optional<Result<ParameterReader>> opened;
  {
    const nb::gil_scoped_release released;
    opened = ParameterReader::open(engine.facts());
  }
  return std::make_unique<ParameterReader>(value_or_raise(std::move(*opened)));
}

// [rows, columns]; a tensor of one dimension: [rows].
nb::object array(const ParameterReader& reader, std::size_t index) {
  const NamedParameter& parameter = reader.parameters()[index];
  auto elements = std::make_unique<std::vector<float>>(reader.read(index));
  const std::size_t shape[] = {static_cast<std::size_t>(parameter.row_count),
                               static_cast<std::size_t>(parameter.column_count)};
  float* data = elements->data();
  const nb::capsule owner(elements.release(),
                          [](void* owned) noexcept { delete static_cast<std::vector<float>*>(owned); });
  return nb::cast(nb::ndarray<nb::numpy, float>(data, parameter.shape.size() == 1 ? 1 : 2, shape, owner));
}

}  // namespace

void bind_parameters(nb::module_& module) {
  nb::class_<ParameterReader>(module, "ParameterReader", "The weights of an engine's own rank, loaded once more.")
      .def_static("open", open_reader, nb::arg("engine"))
      .def("__len__", [](const ParameterReader& reader) { return reader.parameters().size(); })
      .def(
          "name", [](const ParameterReader& reader, std::size_t index) { return reader.parameters().at(index).name; },
          nb::arg("index"))
      .def("array", array, nb::arg("index"), "float32; needs numpy.");
}

}  // namespace chorus::python
