#include "config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "json/json.h"
#include "models/registry.h"

namespace chorus {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string data_path(const std::string& name) {
  return std::string(CHORUS_TEST_DATA) + "/config/" + name;
}

class ModelFolder {
 public:
  ModelFolder() {
    std::string pattern = ::testing::TempDir() + "chorus-model-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ + "/" + name) << text; }

 private:
  std::string path_;
};

// A llama of the smallest useful size.
Json base() {
  return Json::parse(R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":512,"hidden_size":64,
    "intermediate_size":128,"num_hidden_layers":4,"num_attention_heads":4,"max_position_embeddings":512})");
}

Json with(Json config, const std::string& changes) {
  config.update(Json::parse(changes));
  return config;
}

Result<ModelConfig> read(const Json& config) {
  const ModelFolder folder;
  folder.write("config.json", config.dump());
  return read_model_config(folder.path());
}

ModelConfig model_of(const std::string& changes) {
  auto model = read(with(base(), changes));
  EXPECT_TRUE(model.ok()) << model.error().message;
  return std::move(model).value();
}

std::string error_of(const std::string& changes) {
  const auto model = read(with(base(), changes));
  return model.ok() ? "" : model.error().message;
}

TEST(ModelConfig, ReadsTheStoriesModel) {
  const auto model = std::move(read_model_config(std::string(CHORUS_MODELS) + "/stories260k")).value();
  EXPECT_EQ(model.architecture, "LlamaForCausalLM");
  EXPECT_EQ(model.vocab_size, 512);
  EXPECT_EQ(model.num_hidden_layers, 5);
  EXPECT_EQ(model.num_key_value_heads, 4);
  EXPECT_EQ(model.head_dim, 8);
  EXPECT_EQ(model.dtype, DType::bfloat16);
  EXPECT_TRUE(model.tie_word_embeddings);
  EXPECT_DOUBLE_EQ(model.norm_eps, 1e-5);
  EXPECT_THAT(model.bos_token_ids, ElementsAre(1));
  EXPECT_THAT(model.eos_token_ids, ElementsAre(1, 2)) << "generation_config.json comes first";
}

// Every configuration that transformers wrote is read; the registry decides later what is run.
TEST(ModelConfig, ReadsEveryTinyModel) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data_path("tiny"))) {
    const auto model = read_model_config(entry.path());
    EXPECT_TRUE(model.ok()) << model.error().message;
    if (!model.ok()) continue;
    EXPECT_EQ(model->vocab_size, 512) << entry.path();
    EXPECT_THAT(model->eos_token_ids, ElementsAre(2)) << entry.path();
    ++count;
  }
  EXPECT_EQ(count, 17);
}

TEST(ModelConfig, ReadsTheTinyFamilies) {
  const auto qwen2 = std::move(read_model_config(data_path("tiny/qwen2"))).value();
  EXPECT_TRUE(qwen2.attention_bias) << "not in the file: the family always has it";
  EXPECT_THAT(qwen2.layer_window, ElementsAre(0, 0));
  const auto qwen3 = std::move(read_model_config(data_path("tiny/qwen3"))).value();
  EXPECT_EQ(qwen3.head_dim, 32);
  EXPECT_FALSE(qwen3.attention_bias);
  const auto mixtral = std::move(read_model_config(data_path("tiny/mixtral"))).value();
  EXPECT_EQ(mixtral.head_dim, 16) << "null: hidden_size / heads";
  EXPECT_EQ(mixtral.num_experts, 8);
  EXPECT_EQ(mixtral.num_experts_per_tok, 2);
  EXPECT_EQ(mixtral.moe_intermediate_size, 128);
  EXPECT_TRUE(mixtral.norm_topk_prob);
  EXPECT_DOUBLE_EQ(mixtral.rope.theta, 1e6);
  EXPECT_THAT(mixtral.layer_is_moe, ElementsAre(true, true));
  const auto qwen3_moe = std::move(read_model_config(data_path("tiny/qwen3_moe"))).value();
  EXPECT_EQ(qwen3_moe.num_experts, 8);
  EXPECT_EQ(qwen3_moe.moe_intermediate_size, 32);
  EXPECT_TRUE(qwen3_moe.norm_topk_prob);
  const auto phimoe = std::move(read_model_config(data_path("tiny/phimoe"))).value();
  EXPECT_EQ(phimoe.num_experts, 4);
  EXPECT_TRUE(phimoe.attention_bias);
  EXPECT_TRUE(phimoe.lm_head_bias);
  EXPECT_DOUBLE_EQ(phimoe.own("router_jitter_noise"), 0.01);
  const auto gpt2 = std::move(read_model_config(data_path("tiny/gpt2"))).value();
  EXPECT_EQ(gpt2.architecture, "GPT2LMHeadModel");
  EXPECT_EQ(gpt2.hidden_size, 64) << "n_embd";
  EXPECT_EQ(gpt2.intermediate_size, 256) << "null: 4 n_embd";
  const auto gemma3 = std::move(read_model_config(data_path("tiny/gemma3"))).value();
  EXPECT_DOUBLE_EQ(gemma3.rope.theta, 1e6);
  EXPECT_DOUBLE_EQ(gemma3.window_rope->theta, 1e4);
  EXPECT_THAT(gemma3.layer_window, ElementsAre(8, 8, 8, 8, 8, 0));
}

// What the tiny models' references do not show: the values where a file is silent, and other ways to write the same.
TEST(ModelConfig, ReadsWhichLayersTurnAndWhichHaveAWindow) {
  const std::string four = R"("num_hidden_layers":4)";
  const ModelConfig smollm3 = model_of(R"({"architectures":["SmolLM3ForCausalLM"],)" + four + "}");
  EXPECT_THAT(smollm3.layer_is_rotary, ElementsAre(true, true, true, false));
  EXPECT_THAT(smollm3.layer_window, Each(0));
  const ModelConfig sliding = model_of(
      R"({"architectures":["SmolLM3ForCausalLM"],"no_rope_layers":[1,0,1,1],"use_sliding_window":true,"sliding_window":8,)" +
      four + "}");
  EXPECT_THAT(sliding.layer_is_rotary, ElementsAre(true, false, true, true));
  EXPECT_THAT(sliding.layer_window, ElementsAre(0, 8, 0, 0));
  EXPECT_THAT(error_of(R"({"architectures":["SmolLM3ForCausalLM"],"no_rope_layers":[1,0]})"),
              HasSubstr("no_rope_layers"));
  const ModelConfig exaone4 = model_of(R"({"architectures":["Exaone4ForCausalLM"],"sliding_window":8,)" + four + "}");
  EXPECT_THAT(exaone4.layer_window, ElementsAre(8, 8, 8, 0));
  EXPECT_THAT(exaone4.layer_is_rotary, ElementsAre(true, true, true, false));
  const ModelConfig whole = model_of(R"({"architectures":["Exaone4ForCausalLM"],"sliding_window":null,)" + four + "}");
  EXPECT_THAT(whole.layer_window, Each(0));
  EXPECT_THAT(whole.layer_is_rotary, Each(true));
}

TEST(ModelConfig, ReadsHowMuchOfAHeadTurns) {
  EXPECT_EQ(model_of(R"({"architectures":["StableLmForCausalLM"]})").rotary_dim(), 4) << "a quarter of 16";
  EXPECT_EQ(model_of(R"({"architectures":["StableLmForCausalLM"],"partial_rotary_factor":0.5})").rotary_dim(), 8);
  EXPECT_EQ(model_of(R"({"architectures":["Phi3ForCausalLM"],
                         "rope_parameters":{"rope_type":"default","partial_rotary_factor":0.75}})")
                .rotary_dim(),
            12);
  EXPECT_EQ(model_of("{}").rotary_dim(), 16);
  EXPECT_THAT(error_of(R"({"partial_rotary_factor":0.5})"), HasSubstr("1 (every dimension rotates)"));
  EXPECT_THAT(error_of(R"({"architectures":["Phi3ForCausalLM"],"partial_rotary_factor":0.2})"),
              HasSubstr("partial_rotary_factor 0.2 of head_dim 16 is 3"));
  EXPECT_THAT(error_of(R"({"architectures":["StableLmForCausalLM"],"use_parallel_residual":true})"),
              HasSubstr("use_parallel_residual"));
}

// theta * alpha^(dim / (dim - 2)), as in HunYuan's files: 10000 * 1000^(16 / 14).
TEST(ModelConfig, ReadsTheBaseThatAlphaEnlarges) {
  const ModelConfig model = model_of(R"({"architectures":["HunYuanDenseV1ForCausalLM"],
      "rope_scaling":{"type":"dynamic","alpha":1000.0,"factor":1.0,"beta_fast":32,"beta_slow":1}})");
  EXPECT_EQ(model.rope.type, RopeType::standard);
  EXPECT_NEAR(model.rope.theta, 26826957.95, 0.01);
  EXPECT_THAT(error_of(R"({"rope_scaling":{"type":"dynamic","factor":2.0}})"), HasSubstr("rope_scaling"));
}

TEST(ModelConfig, ReadsGranitesFactors) {
  const ModelConfig plain = model_of("{}");
  EXPECT_THAT(plain.own_numbers, IsEmpty());
  EXPECT_EQ(plain.attention_scale, 0);
  const ModelConfig granite = model_of(R"({"architectures":["GraniteForCausalLM"],"embedding_multiplier":12,
      "residual_multiplier":0.22,"attention_multiplier":0.015625,"logits_scaling":8})");
  EXPECT_EQ(granite.own("embedding_multiplier"), 12);
  EXPECT_EQ(granite.own("residual_multiplier"), 0.22);
  EXPECT_EQ(granite.attention_scale, 0.015625);
  EXPECT_EQ(granite.own("logits_scaling"), 8);
  EXPECT_THAT(error_of(R"({"architectures":["GraniteForCausalLM"],"logits_scaling":0})"), HasSubstr("logits_scaling"));
}

TEST(ModelConfig, FillsInTheFamiliesDefaults) {
  const ModelConfig llama = model_of("{}");
  EXPECT_EQ(llama.num_key_value_heads, 4);
  EXPECT_EQ(llama.head_dim, 16);
  EXPECT_DOUBLE_EQ(llama.rope.theta, 1e4);
  EXPECT_DOUBLE_EQ(llama.norm_eps, 1e-6);
  EXPECT_EQ(llama.dtype, DType::float32);
  EXPECT_FALSE(llama.tie_word_embeddings);
  EXPECT_THAT(llama.eos_token_ids, IsEmpty());
  EXPECT_EQ(model_of(R"({"architectures":["Qwen3ForCausalLM"]})").head_dim, 128);
  EXPECT_FALSE(
      model_of(R"({"architectures":["Qwen3MoeForCausalLM"],"num_experts":8,"num_experts_per_tok":2})").norm_topk_prob);
  EXPECT_DOUBLE_EQ(model_of(R"({"architectures":["MixtralForCausalLM"]})").norm_eps, 1e-5);
}

TEST(ModelConfig, ReadsBothSpellings) {
  for (const char* text :
       {R"({"torch_dtype":"bfloat16"})", R"({"dtype":"bfloat16"})", R"({"dtype":"torch.bfloat16"})"}) {
    EXPECT_EQ(model_of(text).dtype, DType::bfloat16) << text;
  }
  const char* llama3[] = {
      R"({"rope_theta":500000,"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}})",
      R"({"rope_theta":500000,"rope_scaling":{"type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}})",
      R"({"rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,"factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}})"};
  for (const char* text : llama3) {
    const RopeConfig rope = model_of(text).rope;
    EXPECT_EQ(rope.type, RopeType::llama3) << text;
    EXPECT_DOUBLE_EQ(rope.theta, 500000) << text;
    EXPECT_DOUBLE_EQ(rope.factor, 8) << text;
    EXPECT_EQ(rope.original_max_position_embeddings, 8192) << text;
  }
}

TEST(ModelConfig, ReadsTheRotaryVariants) {
  const RopeConfig linear = model_of(R"({"rope_scaling":{"type":"linear","factor":2.5}})").rope;
  EXPECT_EQ(linear.type, RopeType::linear);
  EXPECT_DOUBLE_EQ(linear.factor, 2.5);
  const RopeConfig yarn =
      model_of(
          R"({"rope_scaling":{"rope_type":"yarn","factor":4,"original_max_position_embeddings":128,"truncate":false}})")
          .rope;
  EXPECT_EQ(yarn.type, RopeType::yarn);
  EXPECT_FALSE(yarn.truncate);
  EXPECT_DOUBLE_EQ(yarn.beta_fast, 32);
  EXPECT_EQ(yarn.attention_factor, std::nullopt);
  const RopeConfig mscale =
      model_of(R"({"rope_scaling":{"type":"yarn","factor":40,"mscale":1.0,"mscale_all_dim":1.0}})").rope;
  EXPECT_DOUBLE_EQ(mscale.attention_factor.value(), 1.0);
  const RopeConfig longrope =
      model_of(
          R"({"architectures":["PhiMoEForCausalLM"],"hidden_size":16,"original_max_position_embeddings":4096,"rope_scaling":
        {"type":"longrope","short_factor":[1,1.5],"long_factor":[2,3],"short_mscale":1.24,"long_mscale":1.25}})")
          .rope;
  EXPECT_EQ(longrope.type, RopeType::longrope);
  EXPECT_THAT(longrope.short_factor, ElementsAre(1, 1.5));
  EXPECT_THAT(longrope.long_factor, ElementsAre(2, 3));
  EXPECT_DOUBLE_EQ(longrope.long_mscale, 1.25);
  EXPECT_EQ(longrope.original_max_position_embeddings, 4096);
  EXPECT_EQ(model_of(R"({"rope_scaling":null})").rope.type, RopeType::standard);
}

TEST(ModelConfig, WindowsFollowTheFamily) {
  EXPECT_THAT(model_of(R"({"sliding_window":8})").layer_window, Each(0)) << "llama has none";
  EXPECT_THAT(model_of(R"({"architectures":["MistralForCausalLM"],"sliding_window":8})").layer_window,
              ElementsAre(8, 8, 8, 8));
  EXPECT_THAT(model_of(R"({"architectures":["MistralForCausalLM"],"sliding_window":null})").layer_window, Each(0));
  // The configuration classes' own defaults: 4096 for Mistral and, with use_sliding_window, Qwen; None for Mixtral.
  EXPECT_THAT(model_of(R"({"architectures":["MistralForCausalLM"]})").layer_window, Each(4096));
  EXPECT_THAT(model_of(R"({"architectures":["MixtralForCausalLM"]})").layer_window, Each(0));
  EXPECT_THAT(model_of(R"({"architectures":["Qwen3MoeForCausalLM"],"num_experts":0})").layer_window, Each(0));
  EXPECT_THAT(
      model_of(R"({"architectures":["Qwen3MoeForCausalLM"],"num_experts":0,"use_sliding_window":true})").layer_window,
      Each(4096));
  EXPECT_THAT(model_of(R"({"architectures":["Qwen3MoeForCausalLM"],"num_experts":0,"use_sliding_window":true,
      "sliding_window":null})")
                  .layer_window,
              Each(0));
  const std::string qwen2 = R"("architectures":["Qwen2ForCausalLM"],"sliding_window":8)";
  EXPECT_THAT(model_of("{" + qwen2 + "}").layer_window, Each(0));
  EXPECT_THAT(model_of("{" + qwen2 + R"(,"use_sliding_window":true})").layer_window, Each(0))
      << "max_window_layers is 28";
  EXPECT_THAT(model_of("{" + qwen2 + R"(,"use_sliding_window":true,"max_window_layers":2})").layer_window,
              ElementsAre(0, 0, 8, 8));
  EXPECT_THAT(
      model_of("{" + qwen2 +
               R"(,"use_sliding_window":true,"layer_types":["sliding_attention","full_attention","full_attention",
    "sliding_attention"]})")
          .layer_window,
      ElementsAre(8, 0, 0, 8));
  EXPECT_THAT(
      model_of(
          R"({"architectures":["Qwen3MoeForCausalLM"],"num_experts":0,"sliding_window":8,"use_sliding_window":true})")
          .layer_window,
      Each(8));
}

TEST(ModelConfig, SparseLayersFollowStepAndList) {
  const std::string moe = R"({"architectures":["Qwen3MoeForCausalLM"],"num_experts":8,"num_experts_per_tok":2)";
  EXPECT_THAT(model_of(moe + "}").layer_is_moe, ElementsAre(true, true, true, true));
  EXPECT_THAT(model_of(moe + R"(,"decoder_sparse_step":2})").layer_is_moe, ElementsAre(false, true, false, true));
  EXPECT_THAT(model_of(moe + R"(,"mlp_only_layers":[0,3]})").layer_is_moe, ElementsAre(false, true, true, false));
  EXPECT_THAT(model_of(R"({"architectures":["Qwen3MoeForCausalLM"],"num_experts":0})").layer_is_moe, IsEmpty());
}

TEST(ModelConfig, GenerationConfigGivesStopIdsAndDefaults) {
  const ModelFolder folder, other;
  folder.write("config.json", with(base(), R"({"eos_token_id":7,"bos_token_id":[5,4]})").dump());
  EXPECT_THAT(read_model_config(folder.path())->eos_token_ids, ElementsAre(7));
  EXPECT_EQ(read_model_config(folder.path())->eos_token_id, 7) << "the only one there is";
  EXPECT_THAT(read_model_config(folder.path())->bos_token_ids, ElementsAre(4, 5));
  folder.write("generation_config.json",
               R"({"eos_token_id":[9,8,9],"do_sample":true,"temperature":0.7,"top_p":0.8,"top_k":20})");
  auto model = std::move(read_model_config(folder.path())).value();
  EXPECT_THAT(model.eos_token_ids, ElementsAre(8, 9));
  EXPECT_EQ(model.default_temperature, 0.7);
  EXPECT_EQ(model.default_top_k, 20);
  EXPECT_EQ(model.default_min_p, std::nullopt);
  model = std::move(read_model_config(folder.path(), "chorus")).value();
  EXPECT_THAT(model.eos_token_ids, ElementsAre(8, 9));
  EXPECT_EQ(model.default_temperature, std::nullopt);
  EXPECT_FALSE(read_model_config(folder.path(), other.path()).ok());
  other.write("generation_config.json", R"({"do_sample":false,"temperature":0.5})");
  model = std::move(read_model_config(folder.path(), other.path())).value();
  EXPECT_THAT(model.eos_token_ids, ElementsAre(7));
  EXPECT_EQ(model.default_temperature, 0.5) << "do_sample does not matter";
  other.write("generation_config.json", R"({"temperature":0.01,"top_k":50.0,"top_p":null,"min_p":0.1,
      "presence_penalty":0.5,"frequency_penalty":-0.5,"repetition_penalty":1.1,"max_new_tokens":300})");
  model = std::move(read_model_config(folder.path(), other.path())).value();
  EXPECT_EQ(model.default_temperature, 0.01);
  EXPECT_EQ(model.default_top_k, 50);
  EXPECT_EQ(model.default_top_p, std::nullopt);
  EXPECT_EQ(model.default_min_p, 0.1);
  EXPECT_EQ(model.default_presence_penalty, 0.5);
  EXPECT_EQ(model.default_frequency_penalty, -0.5);
  EXPECT_EQ(model.default_max_tokens, 300);
  EXPECT_EQ(model.default_repetition_penalty, 1.1);
  folder.write("generation_config.json", R"({"do_sample":true,"temperature":"hot"})");
  EXPECT_THAT(read_model_config(folder.path()).error().message,
              AllOf(HasSubstr("generation_config.json"), HasSubstr("temperature"), HasSubstr("hot")));
}

TEST(ModelConfig, AWrongSamplingDefaultIsNamed) {
  const ModelFolder folder;
  folder.write("config.json", base().dump());
  for (const auto& [text, word] : std::map<std::string, std::string>{{R"({"temperature":NaN})", "temperature"},
                                                                     {R"({"temperature":1e400})", "temperature"},
                                                                     {R"({"top_p":0})", "top_p is 0"},
                                                                     {R"({"top_k":2.5})", "top_k is 2.5"},
                                                                     {R"({"max_new_tokens":0})", "max_new_tokens is 0"},
                                                                     {R"({"eos_token_id":1e30})", "eos_token_id"}}) {
    folder.write("generation_config.json", text);
    const auto model = read_model_config(folder.path());
    ASSERT_FALSE(model.ok()) << text;
    EXPECT_THAT(model.error().message, AllOf(HasSubstr("generation_config.json"), HasSubstr(word)));
  }
}

// What nobody reads never stops a load, though it be no JSON but Python's
// (https://docs.python.org/3/library/json.html).
TEST(ModelConfig, WhatNobodyReadsDoesNotMatter) {
  std::string deep;
  for (int level = 0; level < 900; ++level) deep += '[';
  deep += std::string(900, ']');
  const ModelFolder folder;
  for (const std::string& value :
       {std::string("1000000000000000019884624838656"), std::string("1e400"), std::string("NaN"),
        std::string("-Infinity"), std::string("\"\\ud800\""), std::string("1,\"unread\":2"), deep}) {
    std::string config = base().dump();
    config.insert(1, "\"unread\":" + value + ",");
    folder.write("config.json", config);
    folder.write("generation_config.json", "{\"unread\":" + value + "}");
    const auto model = read_model_config(folder.path());
    EXPECT_TRUE(model.ok()) << value.substr(0, 40) << ": " << model.error().message;
  }
  folder.write("config.json", R"({"hidden_size":1000000000000000019884624838656,)" + base().dump().substr(1));
  EXPECT_TRUE(read_model_config(folder.path()).ok()) << "the last of equal keys counts";
  folder.write("config.json", with(base(), R"({"unread":1})").dump().insert(1, "\"vocab_size\":1,") + " x");
  EXPECT_FALSE(read_model_config(folder.path()).ok()) << "what is no JSON at all is refused";
}

TEST(ModelConfig, RefusesWithKeyValueAndWhatIsAccepted) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"vocab_size":null})", "vocab_size is missing"},
      {R"({"vocab_size":-1})", "vocab_size is -1; accepted: an integer from 1"},
      {R"({"hidden_size":"64"})", "hidden_size is \"64\""},
      {R"({"hidden_size":64.0})", "hidden_size is 64.0"},
      {R"({"hidden_size":true})", "hidden_size is true"},
      {R"({"hidden_size":[64]})", "hidden_size is a list of 1"},
      {R"({"hidden_size":{}})", "hidden_size is an object"},
      {R"({"num_hidden_layers":18446744073709551615})", "num_hidden_layers is 18446744073709551615"},
      {R"({"num_hidden_layers":4097})", "num_hidden_layers is 4097"},
      {R"({"num_attention_heads":0})", "num_attention_heads is 0"},
      {R"({"num_attention_heads":5})", "not a multiple of num_attention_heads 5"},
      {R"({"num_key_value_heads":3})", "not a multiple of num_key_value_heads 3"},
      {R"({"head_dim":7})", "head_dim is 7"},
      {R"({"head_dim":0})", "head_dim is 0"},
      {R"({"hidden_act":"gelu"})", "hidden_act is \"gelu\"; accepted: silu"},
      {R"({"rms_norm_eps":-1e-5})", "rms_norm_eps"},
      {R"({"tie_word_embeddings":"yes"})", "tie_word_embeddings is \"yes\"; accepted: true or false"},
      {R"({"torch_dtype":"float64"})", "torch_dtype is \"float64\"; accepted: float32, bfloat16, float16"},
      {R"({"eos_token_id":-1})", "eos_token_id is -1"},
      {R"({"eos_token_id":[2,"3"]})", "eos_token_id is \"3\""},
      {R"({"eos_token_id":2.5})", "eos_token_id is 2.5"},
      {R"({"rope_scaling":{"type":"dynamic","factor":2}})", "rope_scaling: type is \"dynamic\""},
      {R"({"rope_scaling":{"rope_type":"linear"}})", "factor is missing"},
      {R"({"rope_scaling":{"rope_type":"linear","factor":0}})", "factor is 0"},
      {R"({"rope_scaling":[1]})", "rope_scaling is a list"},
      {R"({"rope_scaling":{"rope_type":"longrope","short_factor":[1],"long_factor":[1]}})", "of 8 numbers each"},
      {R"({"rope_scaling":{"rope_type":"llama3","factor":8}})", "original_max_position_embeddings"},
      {R"({"rope_theta":0})", "rope_theta is 0"},
      {R"({"partial_rotary_factor":0.5})", "partial_rotary_factor is 0.5"},
      {R"({"quantization_config":{"quant_method":"hqq"}})", "quantization_config (hqq) is not supported"},
      {R"({"quantization_config":7})", "quantization_config (no quant_method)"},
      {R"({"quantization_config":{"quant_method":"gptq","bits":3}})",
       "quantization_config: bits is 3; accepted: 4 or 8"},
      {R"({"quantization_config":{"quant_method":"gptq","group_size":0}})", "group_size is 0"},
      {R"({"quantization_config":{"quant_method":"gptq","checkpoint_format":"marlin"}})",
       "checkpoint_format is \"marlin\"; accepted: gptq, gptq_v2"},
      {R"({"quantization_config":{"quant_method":"gptq","dynamic":{"+:x":{"bits":8}}}})", "dynamic is not empty"},
      {R"({"quantization_config":{"quant_method":"awq","version":"gemv"}})", "version is \"gemv\"; accepted: gemm"},
      {R"({"quantization_config":{"quant_method":"awq","zero_point":false}})", "zero_point is false"},
      {R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[128]}})", "weight_block_size is"},
      {R"({"quantization_config":{"quant_method":"fp8","fmt":"e5m2"}})", "fmt is \"e5m2\""},
      {R"({"quantization_config":{"quant_method":"compressed-tensors","format":"marlin-24"}})",
       "format is \"marlin-24\""},
      {R"({"quantization_config":{"quant_method":"compressed-tensors"}})", "config_groups is missing"},
      {R"({"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"g":{"weights":{"num_bits":2}}}}})",
       "config_groups.g.weights: num_bits is 2; accepted: 8 or 4"},
      {R"({"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"g":{"weights":{"type":"float","num_bits":4}}}}})",
       "num_bits is 4; accepted: 8"},
      {R"({"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"g":{"weights":3}}}})",
       "config_groups.g.weights is no object"},
      {R"({"architectures":[]})", "architectures"},
      {R"({"architectures":"LlamaForCausalLM"})", "architectures"},
      {R"({"architectures":[1]})", "architectures"},
      {R"({"architectures":["MistralForCausalLM"],"sliding_window":-8})", "sliding_window is -8"},
      {R"({"architectures":["Qwen2ForCausalLM"],"layer_types":["full_attention"]})", "layer_types has 1 entries"},
      {R"({"architectures":["Qwen2ForCausalLM"],"layer_types":["a","b","c","d"]})", "layer_types is \"a\""},
      {R"({"architectures":["MixtralForCausalLM"],"num_local_experts":1})", "more than the 1 experts"},
      {R"({"architectures":["PhimoeForCausalLM"],"num_experts_per_tok":3})", "num_experts_per_tok is 3; accepted: 2"},
  };
  for (const auto& [changes, expected] : cases) {
    EXPECT_THAT(error_of(changes), AllOf(HasSubstr("config.json"), HasSubstr(expected))) << changes;
  }
}

TEST(ModelConfig, NamesTheFileThatIsMissingOrBroken) {
  EXPECT_THAT(read_model_config("/nonexistent").error().message, HasSubstr("no such model directory: /nonexistent"));
  const ModelFolder folder;
  EXPECT_EQ(read_model_config(folder.path()).error().code, ErrorCode::not_found);
  EXPECT_THAT(read_model_config(folder.path()).error().message, HasSubstr("no config.json in " + folder.path()));
  for (const std::string& text : {std::string("{"), std::string(""), std::string("[]"), std::string("1"),
                                  std::string(100000, '['), std::string(R"({"vocab_size":1,"vocab_size":2})")}) {
    folder.write("config.json", text);
    const auto model = read_model_config(folder.path());
    ASSERT_FALSE(model.ok());
    EXPECT_THAT(model.error().message, HasSubstr("config.json"));
    EXPECT_LT(model.error().message.size(), 2000U);
  }
}

}  // namespace
}  // namespace chorus
