// Field names and defaults: the configuration classes of Hugging Face transformers 4.40 to 5,
// src/transformers/models/*.
#include "config/model_config.h"

#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <string_view>

#include "config/config_fields.h"
#include "config/nearest_name.h"
#include "json/python_json.h"

namespace chorus {
namespace {

constexpr int layers_max = 4096;
constexpr int experts_max = 1024;
constexpr std::int64_t tokens_max = std::int64_t{1} << 30;

enum class AttentionBias : std::uint8_t { as_declared, always };
// Which layers a sliding window holds for: none (the family has none), all as soon as it is set, all with
// use_sliding_window, or those from max_window_layers on (or as layer_types says) with use_sliding_window.
enum class Window : std::uint8_t { none, all, all_if_used, upper_layers_if_used };
enum class Experts : std::uint8_t { none, mixtral, phimoe, qwen3_moe };

// What differs between families whose config.json says nothing. A family is a line.
struct Family {
  std::string_view architecture;
  Window window;
  int sliding_window;  // where the key is missing; null in the file is none, as 0 is here
  AttentionBias attention_bias;
  Experts experts;
  double rms_norm_eps;
  double rope_theta;
  int head_dim;  // 0: hidden_size / num_attention_heads
};
constexpr std::array families = {
    Family{"LlamaForCausalLM", Window::none, 0, AttentionBias::as_declared, Experts::none, 1e-6, 1e4, 0},
    Family{"MistralForCausalLM", Window::all, 4096, AttentionBias::as_declared, Experts::none, 1e-6, 1e4, 0},
    Family{"Qwen2ForCausalLM", Window::upper_layers_if_used, 4096, AttentionBias::always, Experts::none, 1e-6, 1e4, 0},
    Family{"Qwen3ForCausalLM", Window::upper_layers_if_used, 4096, AttentionBias::as_declared, Experts::none, 1e-6, 1e4,
           128},
    Family{"MixtralForCausalLM", Window::all, 0, AttentionBias::as_declared, Experts::mixtral, 1e-5, 1e6, 0},
    Family{"Qwen3MoeForCausalLM", Window::all_if_used, 4096, AttentionBias::as_declared, Experts::qwen3_moe, 1e-6, 1e4,
           0},
    Family{"PhimoeForCausalLM", Window::all, 0, AttentionBias::as_declared, Experts::phimoe, 1e-5, 1e6, 0},
    Family{"PhiMoEForCausalLM", Window::all, 0, AttentionBias::as_declared, Experts::phimoe, 1e-5, 1e6, 0},
};

const Family* find_family(std::string_view architecture) {
  const auto found = std::find_if(families.begin(), families.end(),
                                  [&](const Family& family) { return family.architecture == architecture; });
  return found == families.end() ? nullptr : &*found;
}

// The architecture whose name is nearest to a model_type: "qwen2_moe" to "Qwen2MoeForCausalLM".
std::optional<std::string> nearest_architecture(std::string model_type) {
  std::erase(model_type, '_');
  std::vector<std::string> stems;
  for (const Family& family : families) {
    std::string stem(family.architecture.substr(0, family.architecture.find("For")));
    std::transform(stem.begin(), stem.end(), stem.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    stems.push_back(std::move(stem));
  }
  const auto nearest = nearest_name(model_type, stems);
  if (!nearest) return std::nullopt;
  const auto place = static_cast<std::size_t>(std::find(stems.begin(), stems.end(), *nearest) - stems.begin());
  return std::string(families[place].architecture);
}

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
void read_sizes(const Family& family, ConfigFields* fields, ModelConfig* model) {
  const auto size = [&](const char* key, std::int64_t max) {
    return static_cast<int>(fields->required_integer(key, 1, max));
  };
  model->vocab_size = size("vocab_size", 1 << 24);
  model->hidden_size = size("hidden_size", 1 << 20);
  model->intermediate_size = size("intermediate_size", 1 << 22);
  model->num_hidden_layers = size("num_hidden_layers", layers_max);
  model->num_attention_heads = size("num_attention_heads", 1 << 16);
  model->max_position_embeddings = size("max_position_embeddings", tokens_max);
  model->num_key_value_heads =
      static_cast<int>(fields->integer_or("num_key_value_heads", 1, 1 << 16, model->num_attention_heads));
  int head_dim = family.head_dim;
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

// Architectures that no table entry describes: what is there, so that the registry can refuse them by name.
void read_known_sizes_leniently(ConfigFields* fields, ModelConfig* model) {
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

void read_activation(ConfigFields* fields) {
  const auto activation = fields->text("hidden_act");
  if (activation && *activation != "silu" && *activation != "swish") {
    fields->refuse_value("hidden_act", *fields->find("hidden_act"), "silu");
  }
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

void read_longrope(ConfigFields* rope, int head_dim, RopeConfig* config) {
  const auto count = static_cast<std::size_t>(head_dim / 2);
  config->short_factor = rope->numbers("short_factor", count, 1e-6, 1e9);
  config->long_factor = rope->numbers("long_factor", count, 1e-6, 1e9);
  if (config->short_factor.size() != count || config->long_factor.size() != count) {
    rope->refuse(fmt::format(
        "longrope needs short_factor and long_factor of head_dim / 2 = {} numbers each; they have {} and {}", count,
        config->short_factor.size(), config->long_factor.size()));
  }
  config->short_mscale = rope->number_or("short_mscale", 0, 1e6, 0);
  config->long_mscale = rope->number_or("long_mscale", 0, 1e6, 0);
}

void read_rope_scaling(ConfigFields* rope, const ModelConfig& model, RopeConfig* config) {
  const char* type_key = rope->has("rope_type") ? "rope_type" : "type";
  if (const auto name = rope->text(type_key)) {
    const auto type = rope_type_of(*name);
    if (!type) rope->refuse_value(type_key, *rope->find(type_key), "default, linear, llama3, yarn, longrope");
    config->type = type.value_or(RopeType::standard);
  }
  config->theta = rope->number_or("rope_theta", 1e-3, 1e15, config->theta);
  if (rope->number_or("partial_rotary_factor", 0, 1, 1.0) != 1.0) {
    rope->refuse_value("partial_rotary_factor", *rope->find("partial_rotary_factor"), "1 (every dimension rotates)");
  }
  if (config->type == RopeType::standard) return;
  const bool needs_factor = config->type != RopeType::longrope;
  if (needs_factor && !rope->has("factor")) rope->refuse("factor is missing; needed: a number from 1 on");
  config->factor = rope->number_or("factor", 1.0, 1e6, 1.0);
  config->original_max_position_embeddings = static_cast<int>(
      rope->integer_or("original_max_position_embeddings", 1, tokens_max, config->original_max_position_embeddings));
  config->attention_factor = rope->number("attention_factor", 1e-6, 1e6);
  if (config->type == RopeType::llama3) {
    config->low_freq_factor = rope->number_or("low_freq_factor", 1e-6, 1e6, 1.0);
    config->high_freq_factor = rope->number_or("high_freq_factor", 1e-6, 1e6, 4.0);
    if (config->original_max_position_embeddings == 0) rope->refuse("llama3 needs original_max_position_embeddings");
    if (config->high_freq_factor <= config->low_freq_factor)
      rope->refuse("high_freq_factor must be above low_freq_factor");
  }
  if (config->type == RopeType::yarn) read_yarn(rope, config);
  if (config->type == RopeType::longrope) read_longrope(rope, model.head_dim, config);
}

// Both spellings: rope_theta with rope_scaling (to transformers 4), rope_parameters (from 5).
Result<void> read_rope(const Family& family, const std::string& where, ConfigFields* fields, ModelConfig* model) {
  RopeConfig* config = &model->rope;
  config->theta = fields->number_or("rope_theta", 1e-3, 1e15, family.rope_theta);
  config->original_max_position_embeddings =
      static_cast<int>(fields->integer_or("original_max_position_embeddings", 1, tokens_max, 0));
  if (fields->number_or("partial_rotary_factor", 0, 1, 1.0) != 1.0) {
    fields->refuse_value("partial_rotary_factor", *fields->find("partial_rotary_factor"),
                         "1 (every dimension rotates)");
  }
  const char* key = fields->has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json* object = fields->find(key);
  if (object == nullptr) return {};
  if (!object->is_object()) {
    fields->refuse_value(key, *object, "an object or null");
    return {};
  }
  ConfigFields rope(*object, where + ": " + key);
  read_rope_scaling(&rope, *model, config);
  return rope.finish();
}

// The list layer_types, or nothing where it is absent.
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
void read_windows(const Family& family, ConfigFields* fields, ModelConfig* model) {
  const auto layers = static_cast<std::size_t>(model->num_hidden_layers);
  model->layer_window.assign(layers, 0);
  if (family.window == Window::none) return;
  const bool used = family.window == Window::all || fields->flag_or("use_sliding_window", false);
  const bool by_layer = family.window == Window::upper_layers_if_used;
  const auto sliding = by_layer ? read_sliding_layers(fields, *model) : std::nullopt;
  const int fallback = fields->is_null("sliding_window") ? 0 : family.sliding_window;
  const auto window = used ? static_cast<int>(fields->integer_or("sliding_window", 1, tokens_max, fallback)) : 0;
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

void read_qwen3_moe(ConfigFields* fields, ModelConfig* model) {
  // transformers 5 writes the number under num_local_experts, 4 under num_experts.
  const char* key = fields->has("num_experts") ? "num_experts" : "num_local_experts";
  model->num_experts = static_cast<int>(fields->integer_or(key, 0, experts_max, 128));
  model->num_experts_per_tok = static_cast<int>(fields->integer_or("num_experts_per_tok", 1, experts_max, 8));
  model->moe_intermediate_size = static_cast<int>(fields->integer_or("moe_intermediate_size", 1, 1 << 22, 768));
  model->norm_topk_prob = fields->flag_or("norm_topk_prob", false);
  const auto step = fields->integer_or("decoder_sparse_step", 1, layers_max, 1);
  const auto dense = fields->integers("mlp_only_layers", layers_max, 0);
  if (model->num_experts == 0) return;
  for (std::int32_t layer = 0; layer < model->num_hidden_layers; ++layer) {
    const bool forced_dense = std::find(dense.begin(), dense.end(), layer) != dense.end();
    model->layer_is_moe.push_back(!forced_dense && (layer + 1) % step == 0);
  }
}

void read_mixtral(ConfigFields* fields, ModelConfig* model, int experts_default) {
  model->num_experts = static_cast<int>(fields->integer_or("num_local_experts", 1, experts_max, experts_default));
  model->num_experts_per_tok = static_cast<int>(fields->integer_or("num_experts_per_tok", 1, experts_max, 2));
  model->moe_intermediate_size = model->intermediate_size;
  model->norm_topk_prob = true;
  model->layer_is_moe.assign(static_cast<std::size_t>(model->num_hidden_layers), true);
}

void read_phimoe(ConfigFields* fields, ModelConfig* model) {
  read_mixtral(fields, model, 16);
  model->norm_topk_prob = false;  // sparsemixer gives the two weights as they are
  model->router_jitter_noise = fields->number_or("router_jitter_noise", 0, 1e3, 0.01);
  model->lm_head_bias = fields->flag_or("lm_head_bias", false);
  if (model->num_experts_per_tok != 2) {
    fields->refuse_value("num_experts_per_tok", *fields->find("num_experts_per_tok"), "2 (sparsemixer)");
  }
}

void read_experts(const Family& family, ConfigFields* fields, ModelConfig* model) {
  switch (family.experts) {
    case Experts::none:
      return;
    case Experts::mixtral:
      read_mixtral(fields, model, 8);
      break;
    case Experts::phimoe:
      read_phimoe(fields, model);
      break;
    case Experts::qwen3_moe:
      read_qwen3_moe(fields, model);
      break;
  }
  if (model->num_experts > 0 && model->num_experts_per_tok > model->num_experts) {
    fields->refuse(fmt::format("num_experts_per_tok {} is more than the {} experts", model->num_experts_per_tok,
                               model->num_experts));
  }
}

std::vector<std::int32_t> read_token_ids(ConfigFields* fields, const char* key) {
  auto ids = fields->integers(key, 1024, 0);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// The values that vLLM takes (0.32, ModelConfig.get_diff_sampling_param), which asks of each whether it is there and
// never looks at do_sample. The bounds are those of a request.
void read_sampling_defaults(ConfigFields* fields, ModelConfig* model) {
  constexpr int sampling_tokens_max = 1 << 24;
  model->default_temperature = fields->number("temperature", 0, 1000);
  model->default_top_p = fields->number("top_p", 0, 1);
  if (model->default_top_p == 0.0) fields->refuse_value("top_p", *fields->find("top_p"), "a number above 0, at most 1");
  model->default_min_p = fields->number("min_p", 0, 1);
  model->default_presence_penalty = fields->number("presence_penalty", -2, 2);
  model->default_frequency_penalty = fields->number("frequency_penalty", -2, 2);
  model->default_repetition_penalty = fields->number("repetition_penalty", 0.01, 100);
  model->default_top_k = fields->whole_number("top_k", -1, sampling_tokens_max);
  model->default_max_tokens = fields->whole_number("max_new_tokens", 1, sampling_tokens_max);
}

bool exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

// A config file is small; a larger one is not one.
constexpr std::size_t config_bytes_max = 16U << 20;

Result<void> read_generation_config(const std::string& directory, bool required, bool sampling, ModelConfig* model) {
  const std::string path = directory + "/generation_config.json";
  if (!exists(path)) {
    if (!required) return {};
    return fail(ErrorCode::not_found, "no {}: --generation-config takes auto, chorus or a directory that has one",
                path);
  }
  CHORUS_TRY(const Json document, read_python_json_file(path, config_bytes_max));
  if (!document.is_object()) return fail(ErrorCode::invalid_argument, "{}: not a JSON object", path);
  ConfigFields fields(document, path);
  if (auto ids = read_token_ids(&fields, "eos_token_id"); !ids.empty()) model->eos_token_ids = std::move(ids);
  if (auto ids = read_token_ids(&fields, "bos_token_id"); !ids.empty()) model->bos_token_ids = std::move(ids);
  if (sampling) read_sampling_defaults(&fields, model);
  return fields.finish();
}

Result<std::string> read_architecture(const std::string& path, ConfigFields* fields) {
  const auto names = fields->texts("architectures", 64);
  CHORUS_TRY_VOID(fields->finish());
  if (!names.empty()) return names.front();
  std::vector<std::string> known;
  for (const Family& family : families) known.emplace_back(family.architecture);
  const std::string model_type = fields->text("model_type").value_or("");
  const auto nearest = nearest_architecture(model_type);
  return fail(ErrorCode::invalid_argument,
              "{}: architectures is missing or empty{}; needed: a list with one of {}, such as [\"{}\"]", path,
              model_type.empty() ? "" : fmt::format(" (model_type is \"{}\")", model_type.substr(0, 40)),
              fmt::join(known, ", "), nearest.value_or("LlamaForCausalLM"));
}

Result<void> read_family(const Family& family, const std::string& path, ConfigFields* fields, ModelConfig* model) {
  read_sizes(family, fields, model);
  CHORUS_TRY_VOID(fields->finish());  // what follows divides by these sizes and sizes lists with them
  read_activation(fields);
  model->rms_norm_eps = fields->number_or("rms_norm_eps", 0, 1, family.rms_norm_eps);
  model->tie_word_embeddings = fields->flag_or("tie_word_embeddings", false);
  model->attention_bias = family.attention_bias == AttentionBias::always || fields->flag_or("attention_bias", false);
  model->mlp_bias = fields->flag_or("mlp_bias", false);
  CHORUS_TRY_VOID(read_rope(family, path, fields, model));
  read_windows(family, fields, model);
  read_experts(family, fields, model);
  read_dtype(fields, model);
  return {};
}

}  // namespace

Result<ModelConfig> read_model_config(const std::string& directory, const std::string& generation_config) {
  if (!exists(directory)) {
    return fail(ErrorCode::not_found,
                "no such model directory: {} (a Hugging Face directory with config.json is needed)", directory);
  }
  const std::string path = directory + "/config.json";
  if (!exists(path)) {
    return fail(ErrorCode::not_found, "no config.json in {}: give a Hugging Face model directory", directory);
  }
  CHORUS_TRY(const Json document, read_python_json_file(path, config_bytes_max));
  if (!document.is_object()) return fail(ErrorCode::invalid_argument, "{}: not a JSON object", path);

  ConfigFields fields(document, path);
  ModelConfig model;
  model.directory = directory;
  CHORUS_TRY(model.architecture, read_architecture(path, &fields));
  model.model_type = fields.text("model_type").value_or("");
  if (const Json* quantization = fields.find("quantization_config")) {
    const Json* method = quantization->is_object() && quantization->contains("quant_method")
                             ? &(*quantization)["quant_method"]
                             : nullptr;
    return fail(
        ErrorCode::invalid_argument,
        "{}: quantization_config ({}) is not supported; use the model's float32, bfloat16 or float16 weights", path,
        method != nullptr && method->is_string() ? method->get<std::string>().substr(0, 40) : "no quant_method");
  }
  model.bos_token_ids = read_token_ids(&fields, "bos_token_id");
  model.eos_token_ids = read_token_ids(&fields, "eos_token_id");
  if (const Family* family = find_family(model.architecture)) {
    CHORUS_TRY_VOID(read_family(*family, path, &fields, &model));
  } else {
    read_known_sizes_leniently(&fields, &model);
  }
  CHORUS_TRY_VOID(fields.finish());
  const bool own_directory = generation_config != "auto" && generation_config != "chorus";
  CHORUS_TRY_VOID(read_generation_config(own_directory ? generation_config : directory, own_directory,
                                         generation_config != "chorus", &model));
  if (model.eos_token_ids.size() == 1) model.eos_token_id = model.eos_token_ids.front();
  return model;
}

int model_len_limit(const ModelConfig& model) {
  const RopeConfig& rope = model.rope;
  if (rope.type != RopeType::linear && rope.type != RopeType::yarn) return model.max_position_embeddings;
  const int original =
      rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings : model.max_position_embeddings;
  const double stretched = std::min(original * rope.factor, static_cast<double>(tokens_max));
  return std::max(model.max_position_embeddings, static_cast<int>(stretched));
}

}  // namespace chorus
