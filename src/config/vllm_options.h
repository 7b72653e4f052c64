// vLLM's engine options that do nothing here.
#pragma once

#include <span>

#include "config/engine_config.h"

namespace chorus {

// Accepted so that a configuration of vLLM's can be given as it is; that they do nothing is said when one is given. Not
// in engine_options(), which is what a user looks at.
std::span<const EngineOption> options_without_effect();
inline constexpr const char* no_effect_help = "accepted as vLLM has it; no effect";

}  // namespace chorus
