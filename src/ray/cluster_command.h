// How cluster.py is run.
#pragma once

#include <string>
#include <vector>

namespace chorus::ray_launcher {

// The command that runs cluster.py with these arguments, by the Python that has Ray's package: that of the virtual
// environment which this program was built with; as a part of a Python package, python3 beside this program, else the
// first of PATH.
std::vector<std::string> cluster_command(const std::vector<std::string>& arguments);

}  // namespace chorus::ray_launcher
