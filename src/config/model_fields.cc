// Field names and defaults: the configuration classes of Hugging Face transformers 4.40 to 5,
// src/transformers/models/*.
#include "config/model_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace chorus {
namespace {

constexpr int experts_max = 1024;

void read_dtype(ConfigFields* fields, ModelConfig* model) {
  model->dtype = DType::float32;  // transformers' default where a file says nothing
  const char* key = fields->has("dtype") ? "dtype" : "torch_dtype";
  auto name = fields->text(key);
  if (!name) return;
  if (name->starts_with("torch.")) name->erase(0, 6);
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
    if (*name == name_of(dtype)) {
      model->dtype = dtype;
      return;
    }
  }
  fields->refuse_value(key, *fields->find(key), "float32, bfloat16, float16");
}

// The sizes every known family must give.
void read_sizes(const DecoderDefaults& defaults, ConfigFields* fields, ModelConfig* model) {
  const auto size = [&](const char* key, std::int64_t max) {
    return static_cast<int>(fields->required_integer(key, 1, max));
  };
  model->vocab_size = size("vocab_size", 1 << 24);
  model->hidden_size = size("hidden_size", 1 << 20);
  model->intermediate_size = size("intermediate_size", 1 << 22);
  model->num_hidden_layers = size("num_hidden_layers", layers_max);
  model->num_attention_heads = size("num_attention_heads", 1 << 16);
  model->max_position_embeddings = size("max_position_embeddings", positions_max);
  model->num_key_value_heads =
      static_cast<int>(fields->integer_or("num_key_value_heads", 1, 1 << 16, model->num_attention_heads));
  int head_dim = defaults.head_dim;
  if (head_dim == 0 && !fields->has("head_dim")) {
    if (model->hidden_size % model->num_attention_heads != 0) {
      fields->refuse(fmt::format("hidden_size {} is not a multiple of num_attention_heads {}, and there is no head_dim",
                                 model->hidden_size, model->num_attention_heads));
    }
    head_dim = std::max(1, model->hidden_size / model->num_attention_heads);
  }
  model->head_dim = static_cast<int>(fields->integer_or("head_dim", 1, 4096, head_dim));
  if (model->head_dim % 2 != 0 || model->head_dim > 4096) {
    fields->refuse(fmt::format("head_dim is {}; accepted: an even number up to 4096 (rotary halves)", model->head_dim));
  }
  if (model->num_attention_heads % model->num_key_value_heads != 0) {
    fields->refuse(fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}",
                               model->num_attention_heads, model->num_key_value_heads));
  }
}

void read_activation(const DecoderDefaults& defaults, ConfigFields* fields) {
  const char* const key = defaults.activation_key;
  const auto name = fields->text(key);
  if (!name) return;
  const bool is_known =
      defaults.is_gelu ? *name == "gelu_pytorch_tanh" || *name == "gelu_new" : *name == "silu" || *name == "swish";
  if (!is_known)
    fields->refuse_value(key, *fields->find(key), defaults.is_gelu ? "gelu_pytorch_tanh, gelu_new" : "silu");
}

std::optional<RopeType> rope_type_of(const std::string& name) {
  if (name == "default") return RopeType::standard;
  if (name == "linear") return RopeType::linear;
  if (name == "llama3") return RopeType::llama3;
  if (name == "yarn") return RopeType::yarn;
  if (name == "longrope" || name == "su") return RopeType::longrope;  // "su": its name in the first Phi-3 files
  return std::nullopt;
}

// YaRN's attention factor from mscale and mscale_all_dim, as transformers' _compute_yarn_parameters has it.
double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void read_yarn(ConfigFields* rope, RopeConfig* config) {
  config->beta_fast = rope->number_or("beta_fast", 1e-6, 1e6, 32.0);
  config->beta_slow = rope->number_or("beta_slow", 1e-6, 1e6, 1.0);
  config->truncate = rope->flag_or("truncate", true);
  const double mscale = rope->number_or("mscale", 0, 1e6, 0);
  const double mscale_all_dim = rope->number_or("mscale_all_dim", 0, 1e6, 0);
  if (!config->attention_factor && mscale != 0 && mscale_all_dim != 0) {
    config->attention_factor = yarn_mscale(config->factor, mscale) / yarn_mscale(config->factor, mscale_all_dim);
  }
}

void read_longrope(ConfigFields* rope, int rotary_dim, RopeConfig* config) {
  const auto count = static_cast<std::size_t>(rotary_dim / 2);
  config->short_factor = rope->numbers("short_factor", count, 1e-6, 1e9);
  config->long_factor = rope->numbers("long_factor", count, 1e-6, 1e9);
  if (config->short_factor.size() != count || config->long_factor.size() != count) {
    rope->refuse(fmt::format(
        "longrope needs short_factor and long_factor of {} numbers each (half of what rotates); they have {} and {}",
        count, config->short_factor.size(), config->long_factor.size()));
  }
  config->short_mscale = rope->number_or("short_mscale", 0, 1e6, 0);
  config->long_mscale = rope->number_or("long_mscale", 0, 1e6, 0);
}

// A base that grows once and for all with `alpha`, which HunYuan's files call dynamic: transformers,
// modeling_hunyuan_v1_dense.py.
void read_alpha(ConfigFields* rope, const ModelConfig& model, RopeConfig* config) {
  const double dim = model.rotary_dim();
  const double theta = rope->number_or("rope_theta", 1e-3, 1e15, config->theta);
  config->theta = theta * std::pow(rope->number_or("alpha", 1e-6, 1e9, 1.0), dim / (dim - 2));
}

void read_rope_scaling(ConfigFields* rope, const ModelConfig& model, RopeConfig* config) {
  const char* type_key = rope->has("rope_type") ? "rope_type" : "type";
  if (const auto name = rope->text(type_key)) {
    if (*name == "dynamic" && rope->has("alpha")) return read_alpha(rope, model, config);
    const auto type = rope_type_of(*name);
    if (!type) rope->refuse_value(type_key, *rope->find(type_key), "default, linear, llama3, yarn, longrope");
    config->type = type.value_or(RopeType::standard);
  }
  config->theta = rope->number_or("rope_theta", 1e-3, 1e15, config->theta);
  if (config->type == RopeType::standard) return;
  const bool needs_factor = config->type != RopeType::longrope;
  if (needs_factor && !rope->has("factor")) rope->refuse("factor is missing; needed: a number from 1 on");
  config->factor = rope->number_or("factor", 1.0, 1e6, 1.0);
  config->original_max_position_embeddings = static_cast<int>(
      rope->integer_or("original_max_position_embeddings", 1, positions_max, config->original_max_position_embeddings));
  config->attention_factor = rope->number("attention_factor", 1e-6, 1e6);
  if (config->type == RopeType::llama3) {
    config->low_freq_factor = rope->number_or("low_freq_factor", 1e-6, 1e6, 1.0);
    config->high_freq_factor = rope->number_or("high_freq_factor", 1e-6, 1e6, 4.0);
    if (config->original_max_position_embeddings == 0) rope->refuse("llama3 needs original_max_position_embeddings");
    if (config->high_freq_factor <= config->low_freq_factor)
      rope->refuse("high_freq_factor must be above low_freq_factor");
  }
  if (config->type == RopeType::yarn) read_yarn(rope, config);
  if (config->type == RopeType::longrope) read_longrope(rope, model.rotary_dim(), config);
}

// The part of each head that turns: beside the other fields, or (transformers 5) among rope_parameters.
void read_partial_rotary(const DecoderDefaults& defaults, ConfigFields* fields, ModelConfig* model) {
  const double fallback = model->partial_rotary_factor;
  const double part = fields->number_or("partial_rotary_factor", 0, 1, fallback);
  if (!defaults.turns_a_part && part != 1.0) {
    fields->refuse_value("partial_rotary_factor", *fields->find("partial_rotary_factor"),
                         "1 (every dimension rotates)");
  }
  model->partial_rotary_factor = part;
  if (model->rotary_dim() < 2 || model->rotary_dim() % 2 != 0) {
    fields->refuse(fmt::format("partial_rotary_factor {} of head_dim {} is {}; accepted: an even number from 2 on",
                               part, model->head_dim, model->rotary_dim()));
    model->partial_rotary_factor = 1.0;
  }
}

// Both spellings: rope_theta with rope_scaling (to transformers 4), rope_parameters (from 5).
Result<void> read_rope(const DecoderDefaults& defaults, ConfigFields* fields, ModelConfig* model) {
  RopeConfig* config = &model->rope;
  config->theta = fields->number_or("rope_theta", 1e-3, 1e15, defaults.rope_theta);
  config->original_max_position_embeddings =
      static_cast<int>(fields->integer_or("original_max_position_embeddings", 1, positions_max, 0));
  model->partial_rotary_factor = defaults.partial_rotary_factor;
  const char* key = fields->has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json* object = fields->find(key);
  if (object != nullptr && !object->is_object()) {
    fields->refuse_value(key, *object, "an object or null");
    return {};
  }
  read_partial_rotary(defaults, fields, model);
  if (object == nullptr) return {};
  ConfigFields rope(*object, fields->where() + ": " + key);
  read_partial_rotary(defaults, &rope, model);
  read_rope_scaling(&rope, *model, config);
  return rope.finish();
}

}  // namespace

Result<void> read_decoder_fields(ConfigFields* fields, const DecoderDefaults& defaults, ModelConfig* model) {
  read_sizes(defaults, fields, model);
  CHORUS_TRY_VOID(fields->finish());  // what follows divides by these sizes and sizes lists with them
  read_activation(defaults, fields);
  model->norm_eps = fields->number_or(defaults.norm_eps_key, 0, 1, defaults.norm_eps);
  model->tie_word_embeddings = fields->flag_or("tie_word_embeddings", defaults.ties);
  model->mlp_bias = fields->flag_or("mlp_bias", false);
  model->layer_window.assign(static_cast<std::size_t>(model->num_hidden_layers), 0);
  model->layer_is_rotary.assign(static_cast<std::size_t>(model->num_hidden_layers), true);
  CHORUS_TRY_VOID(read_rope(defaults, fields, model));
  read_dtype(fields, model);
  return {};
}

Result<void> read_rope_object(ConfigFields* kinds, const char* key, const ModelConfig& model, RopeConfig* config) {
  const Json* object = kinds->find(key);
  if (object == nullptr) return {};
  if (!object->is_object()) {
    kinds->refuse_value(key, *object, "an object");
    return {};
  }
  ConfigFields rope(*object, kinds->where() + ": " + key);
  read_rope_scaling(&rope, model, config);
  return rope.finish();
}

std::optional<std::vector<bool>> read_sliding_layers(ConfigFields* fields, const ModelConfig& model) {
  if (!fields->has("layer_types")) return std::nullopt;
  const auto types = fields->texts("layer_types", layers_max);
  std::vector<bool> sliding;
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      fields->refuse_value("layer_types", Json(type), "sliding_attention, full_attention");
    }
    sliding.push_back(type == "sliding_attention");
  }
  if (sliding.size() != static_cast<std::size_t>(model.num_hidden_layers)) {
    fields->refuse(
        fmt::format("layer_types has {} entries for num_hidden_layers {}", sliding.size(), model.num_hidden_layers));
    sliding.resize(static_cast<std::size_t>(model.num_hidden_layers));
  }
  return sliding;
}

// A window of w lets query i see key j when i - j < w (transformers masking_utils.py, sliding_window_overlay: j > i -
// w), which is w keys with itself.
void read_windows(ConfigFields* fields, Windows which, int window_default, ModelConfig* model) {
  const auto layers = static_cast<std::size_t>(model->num_hidden_layers);
  const bool used = which == Windows::all_layers || fields->flag_or("use_sliding_window", false);
  const bool by_layer = which == Windows::upper_layers_if_used;
  const auto sliding = by_layer ? read_sliding_layers(fields, *model) : std::nullopt;
  const int fallback = fields->is_null("sliding_window") ? 0 : window_default;
  const auto window = used ? static_cast<int>(fields->integer_or("sliding_window", 1, positions_max, fallback)) : 0;
  if (window == 0) {
    if (sliding && std::find(sliding->begin(), sliding->end(), true) != sliding->end()) {
      fields->refuse("layer_types has sliding_attention, but use_sliding_window is false or sliding_window is null");
    }
    return;
  }
  const auto first = by_layer ? static_cast<std::size_t>(fields->integer_or("max_window_layers", 0, INT32_MAX, 28)) : 0;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const bool slides = sliding ? (*sliding)[layer] : layer >= first;
    if (slides) model->layer_window[layer] = window;
  }
}

void read_experts(ConfigFields* fields, const ExpertFields& experts, ModelConfig* model) {
  model->num_experts =
      static_cast<int>(fields->integer_or(experts.count_key, experts.count_min, experts_max, experts.count_default));
  model->num_experts_per_tok =
      static_cast<int>(fields->integer_or("num_experts_per_tok", 1, experts_max, experts.per_token_default));
  if (model->num_experts > 0 && model->num_experts_per_tok > model->num_experts) {
    fields->refuse(fmt::format("num_experts_per_tok {} is more than the {} experts", model->num_experts_per_tok,
                               model->num_experts));
  }
}

void make_every_layer_a_mixture(ConfigFields* fields, int experts_default, ModelConfig* model) {
  read_experts(fields, {"num_local_experts", 1, experts_default, 2}, model);
  model->moe_intermediate_size = model->intermediate_size;
  model->norm_topk_prob = true;
  model->layer_is_moe.assign(static_cast<std::size_t>(model->num_hidden_layers), true);
}

void read_qwen_experts(ConfigFields* fields, const QwenExperts& defaults, ModelConfig* model) {
  // transformers 5 writes the number under num_local_experts, 4 under num_experts.
  const char* key = fields->has("num_experts") ? "num_experts" : "num_local_experts";
  read_experts(fields, {key, 0, defaults.count, defaults.per_token}, model);
  model->moe_intermediate_size =
      static_cast<int>(fields->integer_or("moe_intermediate_size", 1, 1 << 22, defaults.intermediate_size));
  model->norm_topk_prob = fields->flag_or("norm_topk_prob", false);
  const auto step = fields->integer_or("decoder_sparse_step", 1, layers_max, 1);
  const auto dense = fields->integers("mlp_only_layers", layers_max, 0);
  if (model->num_experts == 0) return;
  for (std::int32_t layer = 0; layer < model->num_hidden_layers; ++layer) {
    const bool forced_dense = std::find(dense.begin(), dense.end(), layer) != dense.end();
    model->layer_is_moe.push_back(!forced_dense && (layer + 1) % step == 0);
  }
}

void read_deepseek_experts(ConfigFields* fields, const DeepseekExperts& defaults, ModelConfig* model) {
  read_experts(fields, {"n_routed_experts", 1, defaults.count, defaults.per_token}, model);
  model->moe_intermediate_size =
      static_cast<int>(fields->integer_or("moe_intermediate_size", 1, 1 << 22, defaults.intermediate_size));
  model->norm_topk_prob = fields->flag_or("norm_topk_prob", defaults.normalizes);
  const auto groups = fields->integer_or("n_group", 1, experts_max, 1);
  const auto kept = fields->integer_or("topk_group", 1, groups, 1);
  const std::int64_t in_kept = model->num_experts / groups * kept;
  if (model->num_experts % groups != 0 || in_kept < model->num_experts_per_tok) {
    fields->refuse(
        fmt::format("{} experts in n_group {} equal groups, of which topk_group {} have num_experts_per_tok {}",
                    model->num_experts, groups, kept, model->num_experts_per_tok));
  }
  model->own_numbers.insert(
      model->own_numbers.end(),
      {{"n_group", static_cast<double>(groups)},
       {"topk_group", static_cast<double>(kept)},
       {"routed_scaling_factor", fields->number_or("routed_scaling_factor", 1e-6, 1e6, 1)},
       {"n_shared_experts", static_cast<double>(fields->integer_or("n_shared_experts", 0, experts_max, 0))}});
  const auto dense = fields->integer_or("first_k_dense_replace", 0, layers_max, defaults.dense_layers);
  for (std::int32_t layer = 0; layer < model->num_hidden_layers; ++layer) model->layer_is_moe.push_back(layer >= dense);
}

OwnNumber read_norm_weight_offset(ConfigFields* fields) {
  constexpr const char* name = "norm_weight_offset";
  return {name, static_cast<double>(fields->integer_or(name, 0, 1, 1))};
}

void read_sizes_that_are_there(ConfigFields* fields, ModelConfig* model) {
  const auto size = [&](const char* key) { return static_cast<int>(fields->integer_or(key, 0, INT32_MAX, 0)); };
  model->vocab_size = size("vocab_size");
  model->hidden_size = size("hidden_size");
  model->intermediate_size = size("intermediate_size");
  model->num_hidden_layers = size("num_hidden_layers");
  model->num_attention_heads = size("num_attention_heads");
  model->num_key_value_heads = size("num_key_value_heads");
  model->head_dim = size("head_dim");
  model->max_position_embeddings = size("max_position_embeddings");
}

std::vector<std::int32_t> read_token_ids(ConfigFields* fields, const char* key) {
  auto ids = fields->integers(key, 1024, 0);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace chorus
