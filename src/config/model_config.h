// What config.json and generation_config.json say of a model, in one spelling. A plain value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "base/result.h"
#include "config/weight_quantization.h"
#include "tensor/linear_format.h"

namespace chorus {

enum class RopeType : std::uint8_t { standard, linear, llama3, yarn, longrope };
constexpr auto enumeration_of(RopeType) {
  return Enumeration{"a rope type", RopeType::longrope};
}

// Rotary embedding. `theta`: base of the frequencies. The others as Hugging Face's rope_scaling / rope_parameters.
struct RopeConfig {
  RopeType type = RopeType::standard;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;                   // llama3
  double high_freq_factor = 4.0;                  // llama3
  int original_max_position_embeddings = 0;       // llama3, yarn, longrope; 0: not given
  double beta_fast = 32.0;                        // yarn
  double beta_slow = 1.0;                         // yarn
  std::optional<double> attention_factor;         // yarn, longrope: multiplies cos and sin
  bool truncate = true;                           // yarn
  std::vector<double> short_factor, long_factor;  // longrope, head_dim / 2 each
  double short_mscale = 0, long_mscale = 0;       // phimoe; 0: not given
  bool operator==(const RopeConfig&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.type, self.theta, self.factor, self.low_freq_factor, self.high_freq_factor,
                 self.original_max_position_embeddings, self.beta_fast, self.beta_slow, self.attention_factor,
                 self.truncate, self.short_factor, self.long_factor, self.short_mscale, self.long_mscale);
  }
};

// A number of config.json that only its family reads, under its name there.
struct OwnNumber {
  std::string name;
  double value = 0;
  bool operator==(const OwnNumber&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.name, self.value); }
};

// A matrix that the checkpoint has quantised, by its name with the number of an expert written *; and the format in
// groups that it is packed in: one that has its numbers, or for other blocks of a GGUF file the next that loses little;
// plain: its numbers are packed as floats.
struct StoredFormat {
  std::string tensor;
  LinearFormat::Kind kind = LinearFormat::plain;
  bool operator==(const StoredFormat&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.tensor, self.kind); }
};

// Notes a field that nodes need not agree about: where the model is, what ends a choice, and the defaults of requests.
struct OfFrontEnd {};

struct ModelConfig {
  std::string directory;     // as given by the user
  std::string architecture;  // architectures[0], e.g. "LlamaForCausalLM"
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_hidden_layers = 0;
  int num_attention_heads = 0;
  int num_key_value_heads = 0;
  int head_dim = 0;
  int max_position_embeddings = 0;
  double norm_eps = 1e-6;
  RopeConfig rope;
  std::optional<RopeConfig> window_rope;  // of the layers with a window, where it is another
  double partial_rotary_factor = 1.0;     // how much of each head turns, from its beginning
  std::vector<bool> layer_is_rotary;      // false: its queries and keys do not turn; size num_hidden_layers
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // q, k, v
  bool attention_output_bias = false;
  bool mlp_bias = false;
  bool lm_head_bias = false;
  // Per layer: the number of keys a query may see, itself included; 0 = all. Size num_hidden_layers.
  std::vector<int> layer_window;
  double attention_scale = 0;  // of q k in place of 1 / sqrt(head_dim); 0: that
  // Mixture of experts; num_experts == 0: a dense model.
  int num_experts = 0;
  int num_experts_per_tok = 0;
  int moe_intermediate_size = 0;  // of one expert
  bool norm_topk_prob = true;
  std::vector<bool> layer_is_moe;  // size num_hidden_layers when num_experts > 0
  // What one family alone has: a new one needs no member here. own(NAME) must be there.
  std::vector<OwnNumber> own_numbers;
  double own(std::string_view name) const;
  DType dtype =
      DType::float32;  // of the checkpoint, as declared (float32 if not); safetensors headers decide for each tensor
  WeightQuantization quantization;
  std::vector<StoredFormat> stored_formats;
  std::vector<std::int32_t> bos_token_ids;
  // Each ends a choice: generation_config.json's (else config.json's), and the tokenizer's own once
  // frontend/tokenizer_eos.h has added it. Ascending, unique.
  std::vector<std::int32_t> eos_token_ids;
  // The tokenizer's own, which is not reported as stop_reason. Where no tokenizer names one: the only one there is.
  std::optional<std::int32_t> eos_token_id;
  // Sampling defaults of generation_config.json, used with --generation-config auto.
  std::optional<double> default_temperature, default_top_p, default_min_p;
  std::optional<double> default_presence_penalty, default_frequency_penalty, default_repetition_penalty;
  std::optional<int> default_top_k;
  std::optional<int> default_max_tokens;  // max_new_tokens
  int rotary_dim() const { return static_cast<int>(head_dim * partial_rotary_factor + 1e-9); }
  bool operator==(const ModelConfig&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(
        Noted{self.directory, OfFrontEnd{}}, self.architecture, self.model_type, self.vocab_size, self.hidden_size,
        self.intermediate_size, self.num_hidden_layers, self.num_attention_heads, self.num_key_value_heads,
        self.head_dim, self.max_position_embeddings, self.norm_eps, self.rope, self.window_rope,
        self.partial_rotary_factor, self.layer_is_rotary, self.tie_word_embeddings, self.attention_bias,
        self.attention_output_bias, self.mlp_bias, self.lm_head_bias, self.layer_window, self.attention_scale,
        self.num_experts, self.num_experts_per_tok, self.moe_intermediate_size, self.norm_topk_prob, self.layer_is_moe,
        self.own_numbers, self.dtype, self.quantization, self.stored_formats, self.bos_token_ids,
        // What ends a choice is the head's to say: a node need not have the tokenizer.
        Noted{self.eos_token_ids, OfFrontEnd{}}, Noted{self.eos_token_id, OfFrontEnd{}},
        Noted{self.default_temperature, OfFrontEnd{}}, Noted{self.default_top_p, OfFrontEnd{}},
        Noted{self.default_min_p, OfFrontEnd{}}, Noted{self.default_presence_penalty, OfFrontEnd{}},
        Noted{self.default_frequency_penalty, OfFrontEnd{}}, Noted{self.default_repetition_penalty, OfFrontEnd{}},
        Noted{self.default_top_k, OfFrontEnd{}}, Noted{self.default_max_tokens, OfFrontEnd{}});
  }
};

// The longest sequence the model's positions reach: max_position_embeddings, or more where linear or YaRN scaling
// stretches original_max_position_embeddings further.
int model_len_limit(const ModelConfig& model);

}  // namespace chorus
