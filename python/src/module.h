// The parts of the module chorus._native, each in its own file.
#pragma once

#include <nanobind/nanobind.h>

namespace chorus::python {

void bind_text(nanobind::module_& module);        // sampling options, Tokenizer
void bind_engine(nanobind::module_& module);      // Engine, Job, Mailbox
void bind_parameters(nanobind::module_& module);  // ParameterReader
void bind_world(nanobind::module_& module);       // MeetingPlace, Group

}  // namespace chorus::python
