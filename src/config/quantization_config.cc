#include "config/quantization_config.h"

#include <nlohmann/json.hpp>

#include "gguf/gguf_file.h"

namespace chorus {
namespace {

constexpr const char* refusal =
    "is not supported; use the model's float32, bfloat16 or float16 weights, or a GGUF file of it";

std::string method_of(const Json& quantization) {
  const bool has = quantization.is_object() && quantization.contains("quant_method");
  const Json* method = has ? &quantization["quant_method"] : nullptr;
  return method != nullptr && method->is_string() ? method->get<std::string>().substr(0, 40) : "no quant_method";
}

// What gguf/config.cc wrote: names of tensors by the name of their format.
void read_stored_formats(const Json& quantization, ModelConfig* model) {
  for (const LinearFormat::Kind kind : {LinearFormat::int8, LinearFormat::int4, LinearFormat::int4_minimum}) {
    const auto names = quantization.find(name_of(LinearFormat(kind)));
    if (names == quantization.end()) continue;
    for (const Json& name : *names) model->stored_formats.push_back({name.get<std::string>(), kind});
  }
}

}  // namespace

Result<void> read_quantization(const std::string& path, const ConfigFields& fields, ModelConfig* model) {
  const Json* quantization = fields.find("quantization_config");
  if (quantization == nullptr) return {};
  if (is_gguf(model->directory)) {
    read_stored_formats(*quantization, model);
    return {};
  }
  return fail(ErrorCode::invalid_argument, "{}: quantization_config ({}) {}", path, method_of(*quantization), refusal);
}

}  // namespace chorus
