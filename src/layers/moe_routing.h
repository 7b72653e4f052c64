// Which experts a token goes to and with what weight, from its router logits. Pure functions of one row; ties go to the
// lowest expert id.
#pragma once

#include <cstdint>
#include <span>

namespace chorus {

enum class MoeRouting : std::uint8_t {
  softmax_top_k,  // softmax over all experts, the top k's probabilities as they are (Qwen3Moe, norm_topk_prob false)
  softmax_top_k_normalized,  // the same, divided by their sum (Mixtral: Jiang et al., "Mixtral of experts", 2024,
                             // section 2.1)
  sparse_mixer,  // Phimoe: Liu et al., "GRIN: gradient-informed MoE", 2024, section 2.2, its inference form, k = 2
};

struct ExpertChoice {
  std::int32_t expert = 0;
  float weight = 0;
};

// choices.size() is k; they come in ascending expert id, the order in which outputs are summed (design.md, rule 5).
// `jitter` is the sparse mixer's epsilon. logits may be overwritten.
void route(MoeRouting routing, std::span<float> logits, double jitter, std::span<ExpertChoice> choices);

}  // namespace chorus
