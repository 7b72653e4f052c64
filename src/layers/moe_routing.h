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
  sparse_mixer,   // Phimoe: Liu et al., "GRIN: gradient-informed MoE", 2024, section 2.2, its inference form, k = 2
  group_softmax,  // DeepSeek-V2 (2024, section 2.2.2): the top k of softmax among the groups with the best expert
  group_sigmoid,  // DeepSeek-V3 (2024, section 2.1.2): a corrected sigmoid decides, groups by their two best experts
};

// A router, of one row or of all.
struct MoeRouter {
  MoeRouting routing = MoeRouting::softmax_top_k_normalized;
  double jitter = 0;                // of the sparse mixer: its epsilon
  int groups = 1, kept_groups = 1;  // of the group_ routings: equal groups of experts, and how many are chosen from
  bool normalize = false;           // of these: the weights are divided by their sum
  double scale = 1;                 // of these: then multiplied
};

struct ExpertChoice {
  std::int32_t expert = 0;
  float weight = 0;
};

// choices.size() is k; they come in ascending expert id, the order in which outputs are summed (design.md, rule 5).
// `correction`: of group_sigmoid, one an expert, added to what decides and to no weight; may be null. logits may be
// overwritten; at most 1,024.
void route(const MoeRouter& router, const float* correction, std::span<float> logits, std::span<ExpertChoice> choices);

}  // namespace chorus
