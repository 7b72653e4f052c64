// The ranks of a launcher's job, for chorus/distributed.
#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "meeting.h"
#include "module.h"
#include "raise.h"
#include "rank_group.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

// The transport between the ranks, of which groups are made.
struct RankWorld {
  std::shared_ptr<Transport> transport;  // null: a world of one
};

std::shared_ptr<Meeting> open_meeting(const std::map<std::string, std::string>& environment,
                                      const std::string& key_file, int timeout_ms) {
  Result<std::shared_ptr<Meeting>> meeting = std::shared_ptr<Meeting>();
  {
    const nb::gil_scoped_release released;
    meeting = Meeting::open(environment, key_file, timeout_ms);
  }
  return value_or_raise(std::move(meeting));
}

RankWorld join(Meeting& meeting) {
  Result<std::shared_ptr<Transport>> transport = std::shared_ptr<Transport>();
  {
    const nb::gil_scoped_release released;
    transport = meeting.join();
  }
  return {value_or_raise(std::move(transport))};
}

// A signal that Python's handler makes an exception of: it is raised by the caller.
bool signal_came() {
  const nb::gil_scoped_acquire held;
  return PyErr_CheckSignals() != 0;
}

nb::list all_gather(RankGroup& group, const nb::bytes& own) {
  const std::string message(own.c_str(), own.size());
  Result<std::vector<std::string>> gathered = std::vector<std::string>();
  {
    const nb::gil_scoped_release released;
    gathered = group.all_gather(message, signal_came);
  }
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  nb::list all;
  for (const std::string& part : value_or_raise(std::move(gathered))) all.append(nb::bytes(part.data(), part.size()));
  return all;
}

}  // namespace

void bind_world(nb::module_& module) {
  nb::class_<Meeting>(module, "Meeting", "Where the ranks of a launcher's job meet. One thread at a time.")
      .def_static("open", open_meeting, nb::arg("environment"), nb::arg("key_file"), nb::arg("timeout_ms"),
                  "Waits for the launcher's store. Raises ValueError, TimeoutError.")
      .def("join", join, "Waits for all ranks: the world of those who call.")
      .def_prop_ro("rank", &Meeting::rank)
      .def_prop_ro("world_size", &Meeting::world_size);
  nb::class_<RankWorld>(module, "RankWorld", "A transport between the ranks.").def(nb::init<>());
  nb::class_<RankGroup>(module, "RankGroup", "Some ranks of a world. One thread at a time calls those of a world.")
      .def(
          "__init__",
          [](RankGroup* place, const RankWorld& world, std::vector<int> members) {
            new (place) RankGroup(world.transport, std::move(members));
          },
          nb::arg("world"), nb::arg("members"))
      .def_prop_ro("rank", &RankGroup::rank)
      .def_prop_ro("size", &RankGroup::size)
      .def("all_gather", all_gather, nb::arg("message"), "What each rank has given, by rank; waits for all of them.");
}

}  // namespace chorus::python
