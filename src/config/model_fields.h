// What the families' readers of config.json share (models/FAMILY.cc): each function reads some fields into a
// ModelConfig and records in `fields` the first that is wrong. Both spellings: rope_theta / rope_scaling / torch_dtype
// and rope_parameters / dtype.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config_fields.h"
#include "config/model_config.h"

namespace chorus {

inline constexpr int layers_max = 4096;
inline constexpr std::int64_t positions_max = std::int64_t{1} << 30;

// A family's values where its config.json says nothing.
struct DecoderDefaults {
  const char* norm_eps_key = "rms_norm_eps";
  double norm_eps = 1e-6;
  double rope_theta = 1e4;
  int head_dim = 0;           // 0: hidden_size / num_attention_heads
  bool turns_a_part = false;  // whether partial_rotary_factor may be other than 1
  double partial_rotary_factor = 1.0;
  bool ties = false;  // the output matrix to the embedding
  const char* activation_key = "hidden_act";
  bool is_gelu = false;  // by the tanh form; else silu
};

// The sizes, which every decoder must give, activation, norm, ties, biases of the feed-forward, rotary embedding,
// dtype; no layer has a window. An error: sizes with which nothing else can be read.
Result<void> read_decoder_fields(ConfigFields* fields, const DecoderDefaults& defaults, ModelConfig* model);

// The rotary embedding of one of several objects among rope_parameters.
Result<void> read_rope_object(ConfigFields* kinds, const char* key, const ModelConfig& model, RopeConfig* config);

// Which layers a sliding window holds for: all as soon as it is set, all with use_sliding_window, or those from
// max_window_layers on (or as layer_types says) with use_sliding_window.
enum class Windows : std::uint8_t { all_layers, all_layers_if_used, upper_layers_if_used };
// `window_default`: where the key is missing; null in the file is none, as 0 is here.
void read_windows(ConfigFields* fields, Windows which, int window_default, ModelConfig* model);

// layer_types, true where it says sliding_attention; nothing where it is absent.
std::optional<std::vector<bool>> read_sliding_layers(ConfigFields* fields, const ModelConfig& model);

struct ExpertFields {
  const char* count_key;  // how many there are
  int count_min;          // 0: a model without experts is one of the family, too
  int count_default;
  int per_token_default;  // of num_experts_per_tok
};
void read_experts(ConfigFields* fields, const ExpertFields& experts, ModelConfig* model);
// Mixtral's form: experts as wide as intermediate_size in every layer, two for a token.
void make_every_layer_a_mixture(ConfigFields* fields, int experts_default, ModelConfig* model);

// Values where the file says nothing.
struct QwenExperts {
  int count, per_token, intermediate_size;
};
// Qwen's form: moe_intermediate_size, norm_topk_prob, and layers that are dense (mlp_only_layers, decoder_sparse_step).
void read_qwen_experts(ConfigFields* fields, const QwenExperts& defaults, ModelConfig* model);

// DeepSeek's form, which others took over: n_routed_experts, routed_scaling_factor, n_group, topk_group,
// n_shared_experts, which are own numbers, moe_intermediate_size, norm_topk_prob, first_k_dense_replace.
struct DeepseekExperts {
  int count = 64, per_token = 6, intermediate_size = 1407;
  bool normalizes = false;
  int dense_layers = 0;
};
void read_deepseek_experts(ConfigFields* fields, const DeepseekExperts& defaults, ModelConfig* model);

// How a family reads its config.json; models/registry.h has them all. An error: what follows cannot be read.
struct FamilyReader {
  std::string_view architecture;  // as in architectures[0]
  Result<void> (*read)(ConfigFields* fields, ModelConfig* model);
};

// Reads DIRECTORY/config.json (required) and generation_config.json (optional). Errors name the file, the key, the
// value and what is accepted: no such directory, no config.json, not JSON, no architectures, sizes out of bounds or
// inconsistent (heads, kv heads), a quantization_config (not supported yet). Of an architecture that is not among
// `families` only the sizes that are there are read (others stay 0), so that the registry can refuse it by its name.
// `generation_config`: "auto": the model's own file; "chorus": no sampling defaults from it, but its bos and eos ids;
// else a directory whose generation_config.json (required) is taken instead. As in vLLM its sampling values count
// whether or not it says do_sample.
Result<ModelConfig> read_model_config(const std::string& directory, const std::string& generation_config,
                                      std::span<const FamilyReader> families);

// The own number norm_weight_offset of families whose norms' weights are kept less 1: 1, unless a field of that name,
// which a GGUF file's configuration has alone, says that they have the 1 in them.
OwnNumber read_norm_weight_offset(ConfigFields* fields);

// The sizes that are there, others 0: of an architecture that is not known, so that it can be refused by its name.
void read_sizes_that_are_there(ConfigFields* fields, ModelConfig* model);

// One id or a list; ascending, unique; empty when absent.
std::vector<std::int32_t> read_token_ids(ConfigFields* fields, const char* key);

}  // namespace chorus
