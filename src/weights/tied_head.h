// A model whose output head is its embedding, and a checkpoint that has both.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "weights/checkpoint.h"

namespace chorus {

inline constexpr const char* embedding_name = "model.embed_tokens.weight";
inline constexpr const char* head_name = "lm_head.weight";

// Whether the checkpoint of a model that ties its output head to its embedding has a head of other values: then it is
// used, as in transformers and vLLM (a fine-tuned head beside a config.json that was not changed).
Result<bool> has_own_head(const Checkpoint& checkpoint, std::int64_t vocab_size, std::int64_t hidden_size);

}  // namespace chorus
