// DeepSeek-V2 (2024): latent attention; experts beside shared ones, chosen among the best groups.
#include <nlohmann/json.hpp>

#include "models/deepseek.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_latent_fields(fields, model));
  const std::string method = fields->text("topk_method").value_or("greedy");
  if (method != "greedy" && method != "group_limited_greedy") {
    fields->refuse_value("topk_method", *fields->find("topk_method"), "greedy, group_limited_greedy");
  }
  read_deepseek_experts(fields, {}, model);
  if (method == "greedy") {
    for (OwnNumber& number : model->own_numbers) {
      if (number.name == "n_group" || number.name == "topk_group") number.value = 1;
    }
  }
  return {};
}

Decoder make(const ModelPart& part) {
  return make_deepseek(part, MoeRouting::group_softmax);
}

}  // namespace

extern const Family deepseek_v2_family;
const Family deepseek_v2_family = {"DeepseekV2ForCausalLM", nullptr, read_config, make};

}  // namespace chorus
