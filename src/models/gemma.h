// What Gemma 2 and 3 have in common.
#pragma once

#include "models/family.h"

namespace chorus {

// The fields of both, and the own numbers embedding_multiplier (sqrt(hidden_size), rounded as the model's dtype has it)
// and norm_weight_offset (decoder.h).
Result<void> read_gemma_fields(ConfigFields* fields, const DecoderDefaults& defaults, ModelConfig* model);
// Which layers have the window: as layer_types says, else all but each `pattern`-th.
void read_gemma_windows(ConfigFields* fields, int window_default, int pattern, ModelConfig* model);

DecoderEnds gemma_ends(const ModelConfig& config);
// Norms before and after the halves.
SequentialBlock gemma_block(const LayerBuilder& layer, const Attention::Shape& shape);

}  // namespace chorus
