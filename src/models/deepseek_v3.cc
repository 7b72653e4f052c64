// DeepSeek-V3 and R1 (2024, 2025): DeepSeek-V2 with a sigmoid router whose correction decides, but weighs nothing. The
// layers that predict further tokens are not read.
#include "models/deepseek.h"

namespace chorus {
namespace {

Result<void> read_config(ConfigFields* fields, ModelConfig* model) {
  CHORUS_TRY_VOID(read_latent_fields(fields, model));
  read_deepseek_experts(fields, {256, 8, 2048, true, 3}, model);
  return {};
}

Decoder make(const ModelPart& part) {
  return make_deepseek(part, MoeRouting::group_sigmoid);
}

}  // namespace

extern const Family deepseek_v3_family;
const Family deepseek_v3_family = {"DeepseekV3ForCausalLM", nullptr, read_config, make};

}  // namespace chorus
