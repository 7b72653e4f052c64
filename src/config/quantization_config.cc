#include "config/quantization_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "base/ascii.h"
#include "gguf/gguf_file.h"

namespace chorus {
namespace {

constexpr const char* remedy = "use the model's float32, bfloat16 or float16 weights, or a GGUF file of it";
constexpr int group_size_max = 1 << 20;

// What gguf/config.cc wrote: names of tensors by the name of their format.
void read_gguf_formats(const Json& quantization, ModelConfig* model) {
  for (const LinearFormat::Kind kind : {LinearFormat::int8, LinearFormat::int4, LinearFormat::int4_minimum}) {
    const auto names = quantization.find(name_of(LinearFormat(kind)));
    if (names == quantization.end()) continue;
    for (const Json& name : *names) model->stored_formats.push_back({name.get<std::string>(), kind});
  }
}

// A text of a few, in lower case; the first of them where it is missing.
std::string one_of(ConfigFields* fields, const char* key, std::initializer_list<const char*> accepted) {
  const std::string text = ascii_lower(fields->text(key).value_or(*accepted.begin()));
  if (std::ranges::find(accepted, text) == accepted.end()) {
    fields->refuse_value(key, *fields->find(key), fmt::format("{}; {}", fmt::join(accepted, ", "), remedy));
  }
  return text;
}

void refuse_unless_empty(ConfigFields* fields, const char* key) {
  const Json* value = fields->find(key);
  if (value != nullptr && !value->empty()) {
    fields->refuse(fmt::format("{} is not empty, and what it does is not done here: {}", key, remedy));
  }
}

void refuse_flag(ConfigFields* fields, const char* key) {
  if (fields->flag_or(key, false)) fields->refuse_value(key, *fields->find(key), fmt::format("false; {}", remedy));
}

int read_bits(ConfigFields* fields, const char* key, std::initializer_list<int> accepted) {
  const auto bits = static_cast<int>(fields->integer_or(key, 1, 64, *accepted.begin()));
  if (std::ranges::find(accepted, bits) == accepted.end()) {
    fields->refuse_value(key, *fields->find(key), fmt::format("{}; {}", fmt::join(accepted, " or "), remedy));
  }
  return bits;
}

// -1: a row.
int read_group_size(ConfigFields* fields, const char* key, int fallback) {
  const auto size = static_cast<int>(fields->integer_or(key, -1, group_size_max, fallback));
  if (size == 0) fields->refuse_value(key, *fields->find(key), "-1 or a number above 0");
  return std::max(size, 0);
}

// AutoGPTQ, GPTQModel. Files of checkpoint_format gptq have each zero point less 1.
void read_gptq(ConfigFields* fields, WeightQuantization* quantization) {
  const bool is_first = one_of(fields, "checkpoint_format", {"gptq", "gptq_v2"}) == "gptq";
  quantization->zero_offset = is_first ? 1 : 0;
  refuse_flag(fields, "is_marlin_format");
  one_of(fields, "pack_dtype", {"int32"});
  refuse_unless_empty(fields, "dynamic");  // other bits or groups for some modules
  const int bits = read_bits(fields, "bits", {4, 8});
  quantization->schemes = {{bits, false, fields->flag_or("sym", true), read_group_size(fields, "group_size", 128)}};
}

void read_awq(ConfigFields* fields, WeightQuantization* quantization) {
  one_of(fields, fields->has("version") ? "version" : "format", {"gemm"});
  if (fields->text("backend") == "llm-awq") {
    fields->refuse_value("backend", *fields->find("backend"), fmt::format("autoawq; {}", remedy));
  }
  const int bits = read_bits(fields, fields->has("bits") ? "bits" : "w_bit", {4});
  const int size = read_group_size(fields, fields->has("group_size") ? "group_size" : "q_group_size", 128);
  if (!fields->flag_or("zero_point", true)) fields->refuse_value("zero_point", *fields->find("zero_point"), "true");
  quantization->schemes = {{bits, false, false, size}};
}

// Rows and columns of a block; 0 and 0 where there are none.
std::pair<int, int> read_block(ConfigFields* fields, const char* key) {
  const auto sizes = fields->integers(key, 2, 1);
  if (sizes.empty()) return {0, 0};
  if (sizes.size() != 2 || std::ranges::max(sizes) > group_size_max) {
    fields->refuse_value(key, *fields->find(key), fmt::format("two numbers of at most {}", group_size_max));
    return {0, 0};
  }
  return {sizes[0], sizes[1]};
}

// DeepSeek V3, Qwen3-FP8 and others (transformers' finegrained_fp8); FBGEMM's has a scale a row.
void read_fp8(ConfigFields* fields, WeightQuantization* quantization) {
  one_of(fields, "fmt", {"e4m3", "float8_e4m3fn"});
  one_of(fields, "expert_dtype", {"fp8"});
  const auto [rows, columns] = read_block(fields, "weight_block_size");
  quantization->schemes = {{8, true, true, columns, rows}};
  quantization->rounds_activations = true;
}

// weights of a member of config_groups.
WeightScheme read_weights(ConfigFields* fields) {
  WeightScheme scheme;
  scheme.is_float = one_of(fields, "type", {"int", "float"}) == "float";
  scheme.bits = scheme.is_float ? read_bits(fields, "num_bits", {8}) : read_bits(fields, "num_bits", {8, 4});
  scheme.is_symmetric = fields->flag_or("symmetric", true);
  std::string strategy = fields->has("group_size") ? "group" : "tensor";  // where it is not said
  if (fields->has("strategy")) strategy = one_of(fields, "strategy", {"tensor", "channel", "group", "block"});
  if (strategy == "group") scheme.group_size = read_group_size(fields, "group_size", -1);
  if (strategy == "block") std::tie(scheme.block_rows, scheme.group_size) = read_block(fields, "block_structure");
  return scheme;
}

void read_config_groups(ConfigFields* fields, WeightQuantization* quantization) {
  const Json* groups = fields->find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) {
    fields->refuse("config_groups is missing, empty or no object");
    return;
  }
  for (const auto& [name, group] : groups->items()) {
    const std::string where = fmt::format("config_groups.{}", name.substr(0, 40));
    ConfigFields own(group, where);
    if (own.find("weights") == nullptr) continue;  // of activations alone
    if (!own.find("weights")->is_object()) {
      fields->refuse(fmt::format("config_groups.{}.weights is no object", name.substr(0, 40)));
      return;
    }
    one_of(&own, "format", {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized"});
    ConfigFields weights(*own.find("weights"), where + ".weights");
    quantization->schemes.push_back(read_weights(&weights));
    quantization->rounds_activations |= own.find("input_activations") != nullptr;
    for (const ConfigFields* part : {&own, &weights}) {
      if (const auto finished = part->finish(); !finished.ok()) fields->refuse(finished.error().message);
    }
  }
}

void read_compressed_tensors(ConfigFields* fields, WeightQuantization* quantization) {
  const std::string format =
      one_of(fields, "format",
             {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense"});
  refuse_unless_empty(fields, "transform_config");
  if (const Json* sparsity = fields->find("sparsity_config"); sparsity != nullptr && sparsity->is_object()) {
    ConfigFields sparse(*sparsity, "sparsity_config");
    one_of(&sparse, "format", {"dense"});
    if (const auto finished = sparse.finish(); !finished.ok()) fields->refuse(finished.error().message);
  }
  if (format == "dense") {
    quantization->method = QuantizationMethod::none;
  } else {
    read_config_groups(fields, quantization);
  }
}

void read_mxfp4(ConfigFields* /*fields*/, WeightQuantization* quantization) {
  quantization->schemes = {{4, true, true, 32}};
}

struct Method {
  std::string_view name;  // quant_method
  QuantizationMethod method;
  void (*read)(ConfigFields*, WeightQuantization*);
};
constexpr Method methods[] = {{"gptq", QuantizationMethod::gptq, read_gptq},
                              {"awq", QuantizationMethod::awq, read_awq},
                              {"compressed-tensors", QuantizationMethod::compressed_tensors, read_compressed_tensors},
                              {"fp8", QuantizationMethod::fp8, read_fp8},
                              {"fbgemm_fp8", QuantizationMethod::fp8, read_fp8},
                              {"mxfp4", QuantizationMethod::mxfp4, read_mxfp4}};

std::string names_of_methods() {
  std::vector<std::string_view> names;
  for (const Method& method : methods) names.push_back(method.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

Result<void> read_quantization(const std::string& path, const ConfigFields& fields, ModelConfig* model) {
  const Json* json = fields.find("quantization_config");
  if (json == nullptr) return {};
  if (is_gguf(model->directory)) {
    model->quantization.method = QuantizationMethod::gguf;
    read_gguf_formats(*json, model);
    return {};
  }
  const Json none = Json::object();
  ConfigFields own(json->is_object() ? *json : none, path + ": quantization_config");
  const std::string name = ascii_lower(own.text("quant_method").value_or(""));
  const auto method = std::ranges::find(methods, name, &Method::name);
  if (method == std::end(methods)) {
    return fail(ErrorCode::invalid_argument,
                "{}: quantization_config ({}) is not supported; quant_method may be {}: {}", path,
                name.empty() ? "no quant_method" : name.substr(0, 40), names_of_methods(), remedy);
  }
  model->quantization.method = method->method;
  method->read(&own, &model->quantization);
  return own.finish();
}

}  // namespace chorus
