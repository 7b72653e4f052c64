// From the tensors that a format keeps for one matrix to the matrix: that all are there and fit each other.
#pragma once

#include <string>

#include "base/result.h"
#include "config/weight_quantization.h"
#include "weights/safetensors_checkpoint.h"

namespace chorus {

// `module`: what is in front of the parts' names. Errors, with file, tensor and what it should be: a part that is
// missing, of another type or shape; groups that do not divide the columns; an index of a group that there is not; what
// config.json says otherwise.

// MODULE.qweight, .qzeros, .scales, and of GPTQ .g_idx.
Result<SharedQuantizedMatrix> read_gptq_or_awq(const SafetensorsCheckpoint& files, const std::string& module,
                                               const WeightQuantization& quantization);
// MODULE.weight_packed, .weight_scale, .weight_shape, .weight_zero_point and .weight_g_idx where they are.
Result<SharedQuantizedMatrix> read_packed(const SafetensorsCheckpoint& files, const std::string& module,
                                          const WeightQuantization& quantization);
// MODULE.weight of signed bytes, .weight_scale, .weight_zero_point where it is.
Result<SharedQuantizedMatrix> read_int8(const SafetensorsCheckpoint& files, const std::string& module,
                                        const WeightQuantization& quantization);
// MODULE.weight in E4M3, .weight_scale_inv or .weight_scale.
Result<SharedQuantizedMatrix> read_fp8(const SafetensorsCheckpoint& files, const std::string& module,
                                       const WeightQuantization& quantization);
// MODULE_blocks [experts, rows, columns / 32, 16] and MODULE_scales [experts, rows, columns / 32].
Result<SharedQuantizedMatrix> read_mxfp4(const SafetensorsCheckpoint& files, const std::string& module);

}  // namespace chorus
