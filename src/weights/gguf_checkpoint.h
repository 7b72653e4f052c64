// The tensors of a GGUF file under Hugging Face's names.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "weights/checkpoint.h"

namespace chorus {

// As open_checkpoint(), of a file. Plain tensors are views of the file; quantised ones are made into float32 when they
// are asked for, exactly as the format defines their values, and the rows of q and k put back into Hugging Face's
// order. What Hugging Face has the other way round or in one tensor where the file has several (gguf/architecture.h) is
// a quantized() matrix, though its elements may be plain. An element type that cannot be read is an error of tensor(),
// by name.
Result<std::unique_ptr<Checkpoint>> open_gguf_checkpoint(const std::string& path, bool tied_head);

}  // namespace chorus
