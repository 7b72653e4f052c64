#include "gguf/architecture.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

namespace chorus {
namespace {

constexpr std::int64_t experts_max = 1024;

constexpr PartName whole_names[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};

constexpr PartName layer_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_qkv", "self_attn.qkv_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
    {"ffn_down_shexp", "mlp.shared_expert.down_proj"},
    {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.*.gate_proj"},
    {"ffn_up_exps", "mlp.experts.*.up_proj"},
    {"ffn_down_exps", "mlp.experts.*.down_proj"},
};

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
};

std::optional<std::string_view> find_name(std::span<const PartName> names, std::string_view part) {
  const auto found = std::ranges::find(names, part, &PartName::gguf);
  return found == names.end() ? std::nullopt : std::optional(found->hf);
}

struct LayerPart {
  std::string layer;      // "3"
  std::string_view part;  // "attn_q"
};

// Of "blk.3.attn_q", and nothing of any other text.
std::optional<LayerPart> layer_part(std::string_view stem) {
  constexpr std::string_view start = "blk.";
  if (!stem.starts_with(start)) return std::nullopt;
  stem.remove_prefix(start.size());
  const std::size_t dot = stem.find('.');
  if (dot == std::string_view::npos || dot == 0) return std::nullopt;
  const std::string_view layer = stem.substr(0, dot);
  if (!std::ranges::all_of(layer, [](char letter) { return letter >= '0' && letter <= '9'; })) return std::nullopt;
  return LayerPart{std::string(layer), stem.substr(dot + 1)};
}

// Turns the tensors of one file into those of Hugging Face's names.
class Renamer {
 public:
  Renamer(const GgufFile& file, const GgufArchitecture& architecture, std::vector<HfTensor>* out)
      : architecture_(architecture), out_(out) {
    const std::string attention = std::string(architecture.name) + ".attention.";
    heads_ = file.integer(attention + "head_count").value_or(0);
    key_heads_ = file.integer(attention + "head_count_kv").value_or(heads_);
  }

  Result<void> add(const GgufTensor& tensor) {
    const std::size_t dot = tensor.name.rfind('.');
    const std::string_view stem = tensor.name.substr(0, dot);
    const std::string kind = dot == std::string_view::npos ? "" : std::string(tensor.name.substr(dot));
    const auto part = layer_part(stem);
    const auto name = part ? layer_name(part->part) : find_name(whole_names, stem);
    if (!name) {
      out_->push_back({std::string(tensor.name), &tensor, tensor.shape});
      return {};
    }
    const std::string full = (part ? "model.layers." + part->layer + "." : "") + std::string(*name) + kind;
    if (full.find('*') != std::string::npos) return add_experts(tensor, full);
    out_->push_back({full, &tensor, tensor.shape});
    // A matrix of one row, which the converter makes a vector.
    if (part && part->part == "ffn_gate_inp_shexp" && tensor.shape.size() == 1)
      out_->back().shape = {1, tensor.shape[0]};
    return part ? reorder(part->part, &out_->back()) : Result<void>();
  }

 private:
  std::optional<std::string_view> layer_name(std::string_view part) const {
    const auto own = find_name(architecture_.names, part);
    return own ? own : find_name(layer_names, part);
  }

  Result<void> add_experts(const GgufTensor& tensor, const std::string& pattern) {
    const std::size_t star = pattern.find('*');
    if (tensor.shape.size() != 3 || tensor.shape[0] > experts_max) {
      return fail(ErrorCode::invalid_argument,
                  "tensor {} has the shape [{}]; accepted: of experts 3 dimensions, the first up to {}", tensor.name,
                  fmt::join(tensor.shape, ", "), experts_max);
    }
    for (std::int64_t expert = 0; expert < tensor.shape[0]; ++expert) {
      out_->push_back({fmt::format("{}{}{}", pattern.substr(0, star), expert, pattern.substr(star + 1)),
                       &tensor,
                       {tensor.shape[1], tensor.shape[2]},
                       expert * tensor.shape[1]});
    }
    return {};
  }

  Result<void> reorder(std::string_view part, HfTensor* tensor) const {
    if (!architecture_.reorders_q_and_k || (part != "attn_q" && part != "attn_k")) return {};
    const std::int64_t heads = part == "attn_q" ? heads_ : key_heads_;
    if (heads <= 0 || tensor->shape.empty() || tensor->shape[0] % (2 * heads) != 0) {
      return fail(ErrorCode::invalid_argument, "tensor {} has {} rows, which {} heads do not share evenly by twos",
                  tensor->source->name, tensor->shape.empty() ? 0 : tensor->shape[0], heads);
    }
    tensor->reordered_heads = heads;
    return {};
  }

  const GgufArchitecture& architecture_;
  std::vector<HfTensor>* out_;
  std::int64_t heads_ = 0, key_heads_ = 0;
};

}  // namespace

Result<const GgufArchitecture*> architecture_of(const GgufFile& file) {
  const auto name = file.text("general.architecture");
  if (!name) return fail(ErrorCode::invalid_argument, "{}: no general.architecture: not a language model", file.path());
  if (*name == mixtral.name && file.integer("llama.expert_count").value_or(0) > 0) return &mixtral;
  const auto found = std::ranges::find(architectures, *name, &GgufArchitecture::name);
  if (found != std::end(architectures)) return &*found;
  std::vector<std::string_view> known;
  for (const GgufArchitecture& architecture : architectures) known.push_back(architecture.name);
  return fail(ErrorCode::invalid_argument, "{}: general.architecture is \"{}\"; read from GGUF are {}", file.path(),
              name->substr(0, 60), fmt::join(known, ", "));
}

Result<std::vector<HfTensor>> hf_tensors(const GgufFile& file) {
  CHORUS_TRY(const GgufArchitecture* const architecture, architecture_of(file));
  std::vector<HfTensor> tensors;
  Renamer renamer(file, *architecture, &tensors);
  for (const GgufTensor& tensor : file.tensors()) {
    const auto added = renamer.add(tensor);
    if (!added) return with_context(added.error(), file.path_of(tensor));
  }
  return tensors;
}

std::string name_of_all_experts(const std::string& name) {
  constexpr std::string_view part = ".experts.";
  const std::size_t at = name.find(part);
  if (at == std::string::npos) return name;
  const std::size_t begin = at + part.size(), end = std::min(name.find_first_not_of("0123456789", begin), name.size());
  if (end == begin || (end < name.size() && name[end] != '.')) return name;  // of all experts already
  return name.substr(0, begin) + "*" + name.substr(end);
}

// A head of d rows: the file has row i of the first half at 2 i and row i of the second at 2 i + 1.
std::int64_t source_row(const HfTensor& tensor, std::int64_t row) {
  if (tensor.reordered_heads == 0) return tensor.first_row + row;
  const std::int64_t rows = tensor.shape[0] / tensor.reordered_heads, half = rows / 2;
  const std::int64_t head = row / rows, within = row % rows;
  return tensor.first_row + head * rows + within % half * 2 + within / half;
}

}  // namespace chorus
