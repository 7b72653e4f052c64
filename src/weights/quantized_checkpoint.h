// A folder whose matrices are quantised, under the names that they have in one that is not.
#pragma once

#include <memory>

#include "base/result.h"
#include "config/weight_quantization.h"
#include "weights/safetensors_checkpoint.h"

namespace chorus {

// Which matrices are quantised the files say: NAME.qweight, NAME.weight_packed, NAME_blocks, or a NAME.weight of an
// element type that is no float; all others are as they lie there. Errors: a part of AWQ that scales activations.
Result<std::unique_ptr<Checkpoint>> make_quantized_checkpoint(std::unique_ptr<SafetensorsCheckpoint> files,
                                                              const WeightQuantization& quantization);

}  // namespace chorus
