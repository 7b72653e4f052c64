// What must be the same on all nodes of a cluster, or a request could give other tokens there: program, model, weights,
// numerics profile and the sizes that the request's limits follow from. Names are those of the options where there is
// one.
#pragma once

#include <string>

#include "config/engine_config.h"
#include "config/model_config.h"
#include "exec/load_weights.h"
#include "protocol/messages.h"

namespace chorus {

// Of the weights their digest counts (weights/checkpoint.h), which does not depend on what of them a node has packed.
Fingerprint cluster_fingerprint(const EngineConfig& config, const ModelConfig& model, const LoadedWeights& weights);

// "max-model-len is 512 on the head and 256 on node b; ..."; empty: they agree.
std::string differences(const Fingerprint& head, const Fingerprint& node, const std::string& node_name);

}  // namespace chorus
