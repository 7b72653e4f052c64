#include "gguf/architecture.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace chorus {
namespace {

constexpr PartName mixtral_names[] = {{"ffn_gate_inp", "block_sparse_moe.gate"},
                                      {"ffn_gate_exps", "block_sparse_moe.experts.*.w1"},
                                      {"ffn_up_exps", "block_sparse_moe.experts.*.w3"},
                                      {"ffn_down_exps", "block_sparse_moe.experts.*.w2"}};
constexpr PartName phi3_names[] = {{"ffn_up", "mlp.gate_up_proj"}};
constexpr PartName hunyuan_names[] = {{"attn_q_norm", "self_attn.query_layernorm"},
                                      {"attn_k_norm", "self_attn.key_layernorm"}};

constexpr PartName gemma_names[] = {{"ffn_norm", "pre_feedforward_layernorm"}};
constexpr PartName glm4_names[] = {{"post_attention_norm", "post_self_attn_layernorm"},
                                   {"post_ffw_norm", "post_mlp_layernorm"},
                                   {"ffn_up", "mlp.gate_up_proj"}};
constexpr PartName starcoder2_names[] = {{"ffn_up", "mlp.c_fc"}, {"ffn_down", "mlp.c_proj"}};

constexpr PartName gpt_oss_names[] = {
    {"attn_sinks.weight", "self_attn.sinks"},
    {"ffn_gate_inp", "mlp.router"},
    {"ffn_gate_exps.weight", "mlp.experts.gate_up_proj", PartRows::alternating, "ffn_up_exps.weight"},
    {"ffn_up_exps.weight", "", PartRows::elsewhere},
    {"ffn_gate_exps.bias", "mlp.experts.gate_up_proj_bias", PartRows::alternating, "ffn_up_exps.bias"},
    {"ffn_up_exps.bias", "", PartRows::elsewhere},
    {"ffn_down_exps.weight", "mlp.experts.down_proj", PartRows::turned},
    {"ffn_down_exps.bias", "mlp.experts.down_proj_bias"}};
constexpr std::string_view gpt_oss_needs[] = {"expert_count", "expert_used_count", "attention.sliding_window"};

constexpr PartName glm4_moe_names[] = {{"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
                                       {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
                                       {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
                                       {"ffn_down_shexp", "mlp.shared_experts.down_proj"}};
constexpr std::string_view glm4_moe_needs[] = {
    "expert_count",        "expert_used_count",         "expert_feed_forward_length",
    "expert_shared_count", "leading_dense_block_count", "rope.dimension_count"};

// Its matrices are [inputs, outputs] at Hugging Face (Conv1D).
constexpr PartName gpt2_names[] = {{"token_embd", "transformer.wte"},
                                   {"position_embd", "transformer.wpe"},
                                   {"output_norm", "transformer.ln_f"},
                                   {"attn_norm", "ln_1"},
                                   {"attn_qkv", "attn.c_attn", PartRows::turned},
                                   {"attn_output", "attn.c_proj", PartRows::turned},
                                   {"ffn_norm", "ln_2"},
                                   {"ffn_up", "mlp.c_fc", PartRows::turned},
                                   {"ffn_down", "mlp.c_proj", PartRows::turned}};

// The first files have q, k and v in one.
constexpr PartName phi2_names[] = {{"output_norm", "model.final_layernorm"},
                                   {"attn_qkv", "self_attn.qkv_proj", PartRows::q_k_v},
                                   {"attn_output", "self_attn.dense"},
                                   {"ffn_up", "mlp.fc1"},
                                   {"ffn_down", "mlp.fc2"}};
constexpr std::string_view phi2_needs[] = {"rope.dimension_count"};

// The first files have kv_b whole.
constexpr PartName deepseek2_names[] = {
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_a_norm", "self_attn.q_a_layernorm"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"attn_k_b.weight", "self_attn.kv_b_proj.weight", PartRows::of_heads, "attn_v_b.weight"},
    {"attn_v_b.weight", "", PartRows::elsewhere},
    {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
    {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
    {"ffn_down_shexp", "mlp.shared_experts.down_proj"}};
constexpr std::string_view deepseek2_needs[] = {
    "attention.kv_lora_rank",     "attention.key_length", "attention.value_length",
    "rope.dimension_count",       "expert_count",         "expert_used_count",
    "expert_feed_forward_length", "expert_shared_count",  "leading_dense_block_count"};

// The first files have the rows of in_proj_qkvz as Hugging Face has them ("ssm_in").
constexpr PartName qwen3next_names[] = {
    {"attn_qkv.weight", "linear_attn.in_proj_qkvz.weight", PartRows::of_key_heads, "attn_gate.weight"},
    {"attn_gate.weight", "", PartRows::elsewhere},
    {"ssm_in", "linear_attn.in_proj_qkvz"},
    {"ssm_ba", "linear_attn.in_proj_ba"},
    {"ssm_conv1d", "linear_attn.conv1d"},
    {"ssm_dt.bias", "linear_attn.dt_bias"},
    {"ssm_a", "linear_attn.A_log"},
    {"ssm_norm", "linear_attn.norm"},
    {"ssm_out", "linear_attn.out_proj"}};
constexpr std::string_view qwen3next_needs[] = {"ssm.conv_kernel",
                                                "ssm.inner_size",
                                                "ssm.state_size",
                                                "ssm.time_step_rank",
                                                "ssm.group_count",
                                                "expert_count",
                                                "expert_used_count",
                                                "expert_feed_forward_length",
                                                "expert_shared_feed_forward_length",
                                                "rope.dimension_count"};

constexpr std::int64_t softmax = 1, sigmoid = 2;

// Mixtral is llama with experts.
constexpr GgufArchitecture mixtral = {"llama", "MixtralForCausalLM", "mixtral", true, mixtral_names};

constexpr GgufArchitecture architectures[] = {
    {"llama", "LlamaForCausalLM", "llama", true},
    {"qwen2", "Qwen2ForCausalLM", "qwen2"},
    {"qwen3", "Qwen3ForCausalLM", "qwen3"},
    {"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe"},
    {"phi3", "Phi3ForCausalLM", "phi3", false, phi3_names},
    {"phimoe", "PhimoeForCausalLM", "phimoe", false, mixtral_names},
    {"smollm3", "SmolLM3ForCausalLM", "smollm3", true},
    {"granite", "GraniteForCausalLM", "granite", true},
    {"seed_oss", "SeedOssForCausalLM", "seed_oss"},
    {"exaone4", "Exaone4ForCausalLM", "exaone4"},
    {"hunyuan-dense", "HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", false, hunyuan_names},
    {"stablelm", "StableLmForCausalLM", "stablelm"},
    {"cohere2", "Cohere2ForCausalLM", "cohere2"},
    {"ernie4_5", "Ernie4_5ForCausalLM", "ernie4_5"},
    {"gemma2", "Gemma2ForCausalLM", "gemma2", false, gemma_names},
    {"gemma3", "Gemma3ForCausalLM", "gemma3_text", false, gemma_names},
    {"glm4", "Glm4ForCausalLM", "glm4", false, glm4_names},
    {"olmo2", "Olmo2ForCausalLM", "olmo2"},
    {"olmoe", "OlmoeForCausalLM", "olmoe"},
    {"qwen2moe", "Qwen2MoeForCausalLM", "qwen2_moe"},
    {"starcoder2", "Starcoder2ForCausalLM", "starcoder2", false, starcoder2_names},
    {.name = "gpt-oss",
     .hf_name = "GptOssForCausalLM",
     .model_type = "gpt_oss",
     .names = gpt_oss_names,
     .needs = gpt_oss_needs},
    {.name = "glm4moe",
     .hf_name = "Glm4MoeForCausalLM",
     .model_type = "glm4_moe",
     .names = glm4_moe_names,
     .expert_gating = sigmoid,
     .needs = glm4_moe_needs},
    {.name = "gpt2",
     .hf_name = "GPT2LMHeadModel",
     .model_type = "gpt2",
     .names = gpt2_names,
     .layers = "transformer.h",
     .has_guessed_sizes = true},
    {.name = "phi2",
     .hf_name = "PhiForCausalLM",
     .model_type = "phi",
     .names = phi2_names,
     .needs = phi2_needs,
     .has_guessed_sizes = true},
    {.name = "deepseek2",
     .hf_name = "DeepseekV2ForCausalLM",
     .model_type = "deepseek_v2",
     .names = deepseek2_names,
     .expert_gating = softmax,
     .needs = deepseek2_needs},
    {.name = "deepseek2",
     .hf_name = "DeepseekV3ForCausalLM",
     .model_type = "deepseek_v3",
     .names = deepseek2_names,
     .expert_gating = sigmoid,
     .needs = deepseek2_needs},
    {.name = "qwen3next",
     .hf_name = "Qwen3NextForCausalLM",
     .model_type = "qwen3_next",
     .names = qwen3next_names,
     .needs = qwen3next_needs},
};

// A file that lacks one of them was not made by llama.cpp's converter.
Result<void> check_needs(const GgufFile& file, const GgufArchitecture& architecture) {
  for (const std::string_view need : architecture.needs) {
    const std::string key = fmt::format("{}.{}", architecture.name, need);
    if (file.number(key)) continue;
    return fail(ErrorCode::invalid_argument,
                "{}: no {} among its metadata, without which {} cannot be read: make the file anew with llama.cpp's "
                "converter",
                file.path(), key, architecture.hf_name);
  }
  return {};
}

Error unknown(const GgufFile& file, std::string_view name) {
  std::vector<std::string_view> known;
  for (const GgufArchitecture& architecture : architectures) {
    if (known.empty() || known.back() != architecture.name) known.push_back(architecture.name);
  }
  return fail(ErrorCode::invalid_argument, "{}: general.architecture is \"{}\"; read from GGUF are {}", file.path(),
              name.substr(0, 60), fmt::join(known, ", "));
}

// Where the file has no word for it: sigmoid if there are corrections of what decides, which go with it alone.
std::int64_t likely_gating(const GgufFile& file, const GgufArchitecture& first) {
  const auto dense = file.integer(std::string(first.name) + ".leading_dense_block_count").value_or(0);
  const bool is_corrected = file.tensor(fmt::format("blk.{}.exp_probs_b.bias", dense)) != nullptr;
  return first.expert_gating != 0 && is_corrected ? sigmoid : first.expert_gating;
}

// The row of the name with the file's gating of experts.
Result<const GgufArchitecture*> find_architecture(const GgufFile& file, std::string_view name) {
  if (name == mixtral.name && file.integer("llama.expert_count").value_or(0) > 0) return &mixtral;
  const auto first = std::ranges::find(architectures, name, &GgufArchitecture::name);
  if (first == std::end(architectures)) return unknown(file, name);
  const std::string key = std::string(name) + ".expert_gating_func";
  const std::int64_t gating = file.integer(key).value_or(likely_gating(file, *first));
  std::vector<std::int64_t> accepted;
  for (auto row = first; row != std::end(architectures) && row->name == name; ++row) {
    if (row->expert_gating == 0 || row->expert_gating == gating) return &*row;
    accepted.push_back(row->expert_gating);
  }
  return fail(ErrorCode::invalid_argument, "{}: {} is {}; accepted: {} (1 is softmax, 2 sigmoid)", file.path(), key,
              gating, fmt::join(accepted, ", "));
}

}  // namespace

Result<const GgufArchitecture*> architecture_of(const GgufFile& file) {
  const auto name = file.text("general.architecture");
  if (!name) return fail(ErrorCode::invalid_argument, "{}: no general.architecture: not a language model", file.path());
  CHORUS_TRY(const GgufArchitecture* const found, find_architecture(file, *name));
  CHORUS_TRY_VOID(check_needs(file, *found));
  return found;
}

std::int64_t size_in(const GgufFile& file, const GgufArchitecture& architecture, std::string_view key) {
  constexpr std::int64_t size_max = std::int64_t{1} << 40;
  const auto value = file.integer(fmt::format("{}.{}", architecture.name, key));
  return std::clamp<std::int64_t>(value.value_or(0), 0, size_max);
}

std::int64_t computed_layers(const GgufFile& file, const GgufArchitecture& architecture) {
  return size_in(file, architecture, "block_count") - size_in(file, architecture, "nextn_predict_layers");
}

}  // namespace chorus
