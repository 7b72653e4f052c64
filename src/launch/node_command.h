// The command line of a node that brings one replica of a fleet (`chorus serve --headless`), or a part of one, for
// whoever starts it elsewhere.
#pragma once

#include <string>
#include <vector>

#include "config/engine_config.h"

namespace chorus {

// `program`: of chorus, on that node; `config`: the head's, with its address and port. `part`: of the rank's
// nodes_per_replica ones. Files are named with their absolute paths: they must be there on the node too.
std::vector<std::string> node_command(const std::string& program, const EngineConfig& config, int rank, int part);

}  // namespace chorus
