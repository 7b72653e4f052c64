// What all ranks of a launched world must have in common, for the rendezvous to compare.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "kernels/isa.h"

namespace chorus {

// Names are those of the options. The model is compared by its config.json and the sizes of its weight files, since its
// directory may have another path on another machine.
Result<std::vector<std::pair<std::string, std::string>>> launched_fingerprint(const EngineConfig& config,
                                                                              const ModelConfig& model, Isa isa,
                                                                              const std::string& version);

}  // namespace chorus
