// What DeepSeek-V2 and V3 have in common.
#pragma once

#include "models/family.h"

namespace chorus {

// Sizes, rotary embedding and latent attention; its own numbers: q_lora_rank (0: none), kv_lora_rank, qk_rope_head_dim,
// v_head_dim, rope_interleave.
Result<void> read_latent_fields(ConfigFields* fields, ModelConfig* model);
LatentAttention latent_attention(const LayerBuilder& layer);
Decoder make_deepseek(const ModelPart& part, MoeRouting routing);

}  // namespace chorus
