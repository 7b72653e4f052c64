// The keys: gguf-py/gguf/constants.py of llama.cpp, class Keys.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <span>

#include "gguf/architecture.h"
#include "gguf/documents.h"
#include "json/json.h"

namespace chorus {
namespace {

// Keys of the file's architecture, written under Hugging Face's names.
class Fields {
 public:
  Fields(const GgufFile& file, const GgufArchitecture& architecture, JsonWriter* json)
      : file_(file), architecture_(architecture), prefix_(std::string(architecture.name) + "."), json_(*json) {}

  std::optional<std::int64_t> integer(const char* key) const { return file_.integer(prefix_ + key); }
  std::int64_t size(const char* key) const { return size_in(file_, architecture_, key); }
  void copy_integer(const char* name, const char* key) {
    if (const auto value = integer(key)) json_.key(name).value(*value);
  }
  // Numbers are float32 in the file: the shortest digits of one are what the model's own config.json has.
  void copy_number(const char* name, const char* key) {
    if (const auto value = number(key)) json_.key(name).value(*value);
  }
  std::optional<float> number(const char* key) const {
    const auto value = file_.number(prefix_ + key);
    return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
  }
  std::optional<std::string_view> text(const char* key) const { return file_.text(prefix_ + key); }
  std::optional<bool> flag(const char* key) const { return file_.flag(prefix_ + key); }

 private:
  const GgufFile& file_;
  const GgufArchitecture& architecture_;
  std::string prefix_;
  JsonWriter& json_;
};

bool has(const GgufFile& file, std::string_view tensor) {
  return file.tensor(tensor) != nullptr;
}

std::int64_t rows_of(const GgufFile& file, std::string_view tensor) {
  const GgufTensor* const found = file.tensor(tensor);
  return found == nullptr || found->shape.empty() ? 0 : found->shape[0];
}

// Of latent attention: of a head what turns, what does not, and values. Older files have its sizes as key_length and
// value_length; in newer ones these are of the narrow row that all heads share.
void write_latent_heads(Fields* fields, JsonWriter* json) {
  const bool is_newer = fields->integer("attention.key_length_mla").has_value();
  const std::int64_t turned = fields->size("rope.dimension_count");
  json->key("head_dim").value(turned);
  json->key("qk_rope_head_dim").value(turned);
  json->key("qk_nope_head_dim")
      .value(fields->size(is_newer ? "attention.key_length_mla" : "attention.key_length") - turned);
  fields->copy_integer("v_head_dim", is_newer ? "attention.value_length_mla" : "attention.value_length");
  fields->copy_integer("kv_lora_rank", "attention.kv_lora_rank");
  if (fields->integer("attention.q_lora_rank")) {
    fields->copy_integer("q_lora_rank", "attention.q_lora_rank");
  } else {
    json->key("q_lora_rank").null();
  }
}

void write_heads(const GgufFile& file, bool are_guessed, Fields* fields, JsonWriter* json) {
  const std::int64_t heads = fields->integer("attention.head_count").value_or(0);
  const std::int64_t even_share = heads > 0 ? fields->integer("embedding_length").value_or(0) / heads : 0;
  const std::int64_t head_dim = fields->integer("attention.key_length").value_or(even_share);
  const std::int64_t key_rows = are_guessed ? rows_of(file, "blk.0.attn_k.weight") : 0;
  if (head_dim > 0 && key_rows > 0) {
    json->key("num_key_value_heads").value(key_rows / head_dim);
  } else {
    fields->copy_integer("num_key_value_heads", "attention.head_count_kv");
  }
  if (head_dim > 0) json->key("head_dim").value(head_dim);
  // All of a head, too, where that is not what a family's class has.
  const std::int64_t turned = fields->size("rope.dimension_count");
  if (turned > 0 && turned <= head_dim) {
    json->key("partial_rotary_factor").value(static_cast<double>(turned) / static_cast<double>(head_dim));
  }
}

void write_sizes(const GgufFile& file, const GgufArchitecture& architecture, Fields* fields, JsonWriter* json) {
  const GgufTensor* const embedding = file.tensor("token_embd.weight");
  if (embedding != nullptr && embedding->shape.size() == 2) json->key("vocab_size").value(embedding->shape[0]);
  fields->copy_integer("hidden_size", "embedding_length");
  const std::int64_t width = architecture.has_guessed_sizes ? rows_of(file, "blk.0.ffn_up.weight") : 0;
  if (width > 0) {
    json->key("intermediate_size").value(width);
  } else {
    const bool has_dense = fields->integer("feed_forward_length").has_value();
    fields->copy_integer("intermediate_size", has_dense ? "feed_forward_length" : "expert_feed_forward_length");
  }
  if (fields->integer("block_count")) json->key("num_hidden_layers").value(computed_layers(file, architecture));
  fields->copy_integer("num_attention_heads", "attention.head_count");
  fields->copy_integer("max_position_embeddings", "context_length");
  if (fields->integer("attention.kv_lora_rank")) {
    write_latent_heads(fields, json);
  } else {
    write_heads(file, architecture.has_guessed_sizes, fields, json);
  }
  // Whatever a family calls it.
  fields->copy_number("rms_norm_eps", "attention.layer_norm_rms_epsilon");
  fields->copy_number("layer_norm_eps", "attention.layer_norm_epsilon");
  fields->copy_number("norm_epsilon", "attention.layer_norm_epsilon");
  if (!fields->number("attention.layer_norm_rms_epsilon"))
    fields->copy_number("rms_norm_eps", "attention.layer_norm_epsilon");
}

// What the tensors tell: which projections have biases, and whether the head is the embedding.
void write_structure(const GgufFile& file, JsonWriter* json) {
  json->key("tie_word_embeddings").value(!has(file, "output.weight"));
  json->key("lm_head_bias").value(has(file, "output.bias"));
  const bool bias = has(file, "blk.0.attn_q.bias") || has(file, "blk.0.attn_qkv.bias");
  json->key("attention_bias").value(bias);
  json->key("use_qkv_bias").value(bias);
  json->key("attention_out_bias").value(has(file, "blk.0.attn_output.bias"));
  json->key("mlp_bias").value(has(file, "blk.0.ffn_down.bias"));
  json->key("use_bias").value(has(file, "blk.0.attn_output.bias"));
  json->key("use_parallel_residual").value(!has(file, "blk.0.ffn_norm.weight"));
  const bool norms_heads = has(file, "blk.0.attn_q_norm.weight");
  json->key("qk_layernorm").value(norms_heads);
  json->key("use_qk_norm").value(norms_heads);
}

// What of Gemma the format has in another way: its norms' weights have the 1 in them, and the scale of the scores
// follows from the sizes (llama.cpp's llama-model.cpp: f_attention_scale).
void write_gemma(const GgufArchitecture& architecture, Fields* fields, JsonWriter* json) {
  if (!architecture.name.starts_with("gemma")) return;
  json->key("norm_weight_offset").value(0);
  const std::int64_t layers = fields->integer("block_count").value_or(0);
  const bool is_27b = layers == (architecture.name == "gemma2" ? 46 : 62);
  const std::int64_t heads = std::max<std::int64_t>(1, fields->integer("attention.head_count").value_or(1));
  const std::int64_t share = fields->integer("embedding_length").value_or(0) / heads;
  json->key("query_pre_attn_scalar").value(is_27b ? share : fields->integer("attention.key_length").value_or(share));
  fields->copy_number("attn_logit_softcapping", "attn_logit_softcapping");
  fields->copy_number("final_logit_softcapping", "final_logit_softcapping");
  fields->copy_number("rope_local_base_freq", "rope.freq_base_swa");
}

// GPT-2's own names of the sizes.
void write_gpt2(const GgufFile& file, const GgufArchitecture& architecture, Fields* fields, JsonWriter* json) {
  if (architecture.name != "gpt2") return;
  fields->copy_integer("n_embd", "embedding_length");
  fields->copy_integer("n_layer", "block_count");
  fields->copy_integer("n_head", "attention.head_count");
  const std::int64_t positions = rows_of(file, "position_embd.weight"), width = rows_of(file, "blk.0.ffn_up.weight");
  if (positions > 0) json->key("n_positions").value(positions);
  if (width > 0) json->key("n_inner").value(width);
  fields->copy_number("layer_norm_epsilon", "attention.layer_norm_epsilon");
}

// Norms' weights have the 1 in them, and A_log is -exp(A_log).
void write_qwen3_next(const GgufArchitecture& architecture, Fields* fields, JsonWriter* json) {
  if (architecture.name != "qwen3next") return;
  json->key("norm_weight_offset").value(0);
  json->key("linear_decays_are_final").value(true);
  fields->copy_integer("full_attention_interval", "full_attention_interval");
  fields->copy_integer("linear_conv_kernel_dim", "ssm.conv_kernel");
  fields->copy_integer("linear_num_key_heads", "ssm.group_count");
  fields->copy_integer("linear_key_head_dim", "ssm.state_size");
  fields->copy_integer("linear_num_value_heads", "ssm.time_step_rank");
  const std::int64_t heads = std::max<std::int64_t>(1, fields->size("ssm.time_step_rank"));
  json->key("linear_value_head_dim").value(fields->size("ssm.inner_size") / heads);
}

// Whether the weights of the chosen experts are divided by their sum: where the file has no word for it as llama.cpp's
// graphs do.
bool normalizes(const GgufArchitecture& architecture, const Fields& fields) {
  constexpr std::string_view not_divided[] = {"qwen2moe", "olmoe", "deepseek2"};
  const bool divides = std::ranges::find(not_divided, architecture.name) == std::end(not_divided);
  return fields.flag("expert_weights_norm").value_or(divides);
}

void write_experts(const GgufArchitecture& architecture, Fields* fields, JsonWriter* json) {
  if (!fields->integer("expert_count")) return;
  for (const char* const name : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    fields->copy_integer(name, "expert_count");
  }
  fields->copy_integer("num_experts_per_tok", "expert_used_count");
  fields->copy_integer("moe_intermediate_size", "expert_feed_forward_length");
  fields->copy_integer("shared_expert_intermediate_size", "expert_shared_feed_forward_length");
  fields->copy_integer("n_shared_experts", "expert_shared_count");
  fields->copy_integer("first_k_dense_replace", "leading_dense_block_count");
  fields->copy_integer("n_group", "expert_group_count");
  fields->copy_integer("topk_group", "expert_group_used_count");
  const bool has_groups = fields->integer("expert_group_count").value_or(1) > 1;
  json->key("topk_method").value(has_groups ? "group_limited_greedy" : "greedy");
  fields->copy_number("routed_scaling_factor", "expert_weights_scale");
  json->key("norm_topk_prob").value(normalizes(architecture, *fields));
}

void write_factors(const char* name, const GgufTensor& tensor, JsonWriter* json) {
  json->key(name).begin_array();
  for (std::size_t i = 0; i < tensor.bytes / sizeof(float); ++i) {
    json->value(load_as_float(tensor.data, DType::float32, i));
  }
  json->end_array();
}

// Divisors of the frequencies, one for each: "longrope" with as many for short contexts as for long ones. Llama 3.1's
// come this way ("rope_freqs"), computed when the file was made.
bool write_rope_factors(const GgufFile& file, Fields* fields, JsonWriter* json) {
  const auto factors = [&file](const char* name) {
    const GgufTensor* const tensor = file.tensor(name);
    const bool readable = tensor != nullptr && tensor->type->dtype == DType::float32;
    return readable ? tensor : nullptr;
  };
  const GgufTensor* const both = factors("rope_freqs.weight");
  const GgufTensor* const brief = both != nullptr ? both : factors("rope_factors_short.weight");
  const GgufTensor* const far = both != nullptr ? both : factors("rope_factors_long.weight");
  if (brief == nullptr || far == nullptr) return false;
  json->key("rope_scaling").begin_object().key("rope_type").value("longrope");
  write_factors("short_factor", *brief, json);
  write_factors("long_factor", *far, json);
  if (both != nullptr) {
    json->key("attention_factor").value(1.0);
    fields->copy_integer("original_max_position_embeddings", "context_length");
  } else {
    fields->copy_number("attention_factor", "rope.scaling.attn_factor");
    fields->copy_integer("original_max_position_embeddings", "rope.scaling.original_context_length");
  }
  json->end_object();
  return true;
}

// DeepSeek's YaRN: the file has a tenth of mscale_all_dim, and mscale is the same (llama.cpp,
// src/models/deepseek2.cpp). Six digits of a float32 are what config.json had.
void write_mscale(const Fields& fields, JsonWriter* json) {
  const double mscale = std::round(fields.number("rope.scaling.yarn_log_multiplier").value_or(0) * 1e7) / 1e6;
  if (mscale == 0) return;
  for (const char* const name : {"mscale", "mscale_all_dim"}) json->key(name).value(mscale);
}

void write_rope(const GgufFile& file, const GgufArchitecture& architecture, Fields* fields, JsonWriter* json) {
  fields->copy_number("rope_theta", "rope.freq_base");
  if (write_rope_factors(file, fields, json)) return;
  const auto type = fields->text("rope.scaling.type");
  if (!type || *type == "none") return;
  json->key("rope_scaling").begin_object().key("rope_type").value(*type);
  fields->copy_number("factor", "rope.scaling.factor");
  fields->copy_integer("original_max_position_embeddings", "rope.scaling.original_context_length");
  fields->copy_number("beta_fast", "rope.scaling.yarn_beta_fast");
  fields->copy_number("beta_slow", "rope.scaling.yarn_beta_slow");
  // No word for it: gpt-oss's own config.json.
  if (architecture.name == "gpt-oss") json->key("truncate").value(false);
  if (architecture.name == "deepseek2") write_mscale(*fields, json);
  json->end_object();
}

// The dtype of what most of the model is; quantised matrices are computed in bfloat16.
const char* dtype_of(const GgufFile& file) {
  std::size_t most = 0;
  DType dtype = DType::bfloat16;
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.shape.size() < 2 || tensor.bytes <= most) continue;
    most = tensor.bytes;
    dtype = tensor.type->dtype.value_or(DType::bfloat16);
  }
  return name_of(dtype);
}

void write_window(const Fields& fields, JsonWriter* json) {
  json->key("sliding_window");
  const auto window = fields.integer("attention.sliding_window");
  if (window && *window > 0) {
    json->value(*window);
  } else {
    json->null();
  }
}

void write_token(const GgufFile& file, const char* name, const char* key, JsonWriter* json) {
  if (const auto id = file.integer(key)) json->key(name).value(*id);
}

// What an answer ends with besides its end of text, in chat models' vocabularies: llama.cpp looks for these texts, too
// (llama-vocab.cpp, "special_eog_ids").
bool ends_a_turn(std::string_view token) {
  constexpr std::string_view known[] = {"<|eot_id|>",    "<|eom_id|>",    "<|im_end|>",      "<|end|>",   "<|call|>",
                                        "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|return|>"};
  return std::ranges::find(known, token) != std::end(known);
}

// gpt-oss ends a message with <|end|>, of which an answer has several, and the answer with <|return|> or <|call|>.
bool has_messages(std::span<const std::string_view> tokens) {
  const auto has = [tokens](std::string_view text) { return std::ranges::find(tokens, text) != tokens.end(); };
  return has("<|return|>") && has("<|call|>");
}

// Matrices by the format that they can be packed in; of experts, which are many, one name for all of a kind.
Result<void> write_formats(const GgufFile& file, JsonWriter* json) {
  std::map<std::string_view, std::set<std::string>> names;
  CHORUS_TRY(const std::vector<HfTensor> tensors, hf_tensors(file));
  for (const HfTensor& tensor : tensors) {
    const LinearFormat::Kind kind = tensor.kind();
    if (kind == LinearFormat::plain || !tensor.is_matrix()) continue;
    names[name_of(LinearFormat(kind))].insert(name_of_all_experts(tensor.name));
  }
  if (names.empty()) return {};
  json->key("quantization_config").begin_object();
  json->key("quant_method").value("gguf");
  for (const auto& [format, tensors_of] : names) {
    json->key(format).begin_array();
    for (const std::string& name : tensors_of) json->value(name);
    json->end_array();
  }
  json->end_object();
  return {};
}

}  // namespace

Result<std::string> gguf_config_json(const GgufFile& file) {
  CHORUS_TRY(const GgufArchitecture* const architecture, architecture_of(file));
  std::string text;
  JsonWriter json(&text);
  Fields fields(file, *architecture, &json);
  json.begin_object();
  json.key("architectures").begin_array().value(architecture->hf_name).end_array();
  json.key("model_type").value(architecture->model_type);
  json.key("torch_dtype").value(dtype_of(file));
  write_sizes(file, *architecture, &fields, &json);
  write_structure(file, &json);
  write_experts(*architecture, &fields, &json);
  write_gemma(*architecture, &fields, &json);
  write_gpt2(file, *architecture, &fields, &json);
  write_qwen3_next(*architecture, &fields, &json);
  write_rope(file, *architecture, &fields, &json);
  write_window(fields, &json);
  fields.copy_number("embedding_multiplier", "embedding_scale");
  fields.copy_number("residual_multiplier", "residual_scale");
  fields.copy_number("attention_multiplier", "attention.scale");
  fields.copy_number("logits_scaling", "logit_scale");
  fields.copy_number("logit_scale", "logit_scale");
  write_token(file, "bos_token_id", "tokenizer.ggml.bos_token_id", &json);
  write_token(file, "eos_token_id", "tokenizer.ggml.eos_token_id", &json);
  CHORUS_TRY_VOID(write_formats(file, &json));
  json.end_object();
  return text;
}

Result<std::string> gguf_generation_config_json(const GgufFile& file) {
  std::string text;
  JsonWriter json(&text);
  json.begin_object();
  write_token(file, "bos_token_id", "tokenizer.ggml.bos_token_id", &json);
  json.key("eos_token_id").begin_array();
  for (const char* const key : {"eos", "eot", "eom"}) {
    if (const auto id = file.integer(fmt::format("tokenizer.ggml.{}_token_id", key))) json.value(*id);
  }
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  const auto types = file.numbers("tokenizer.ggml.token_type");
  constexpr double control = 3;
  const std::string_view ends_a_message = has_messages(tokens) ? "<|end|>" : "";
  for (std::size_t id = 0; id < std::min(tokens.size(), types.size()); ++id) {
    const bool ends = types[id] == control && ends_a_turn(tokens[id]) && tokens[id] != ends_a_message;
    if (ends) json.value(static_cast<std::int64_t>(id));
  }
  json.end_array();
  const auto number = [&](const char* name, const char* key) {
    if (const auto value = file.number(key)) json.key(name).value(static_cast<float>(*value));
  };
  number("temperature", "general.sampling.temp");
  number("top_p", "general.sampling.top_p");
  number("min_p", "general.sampling.min_p");
  number("repetition_penalty", "general.sampling.penalty_repeat");
  if (const auto count = file.integer("general.sampling.top_k")) json.key("top_k").value(*count);
  json.end_object();
  return text;
}

}  // namespace chorus
