#include "cli/version.h"

#include <fmt/format.h>

#include "exec/load_weights.h"

namespace chorus {

std::string version() {
  return CHORUS_VERSION;
}

std::vector<DType> compute_dtypes() {
  return {DType::bfloat16, DType::float32};
}

std::string version_text() {
  std::string text = fmt::format("chorus {}\nnumerics profile:", version());
  for (const DType dtype : compute_dtypes())
    text += fmt::format(" {}", numerics_profile(available_isas().front(), dtype));
  return text;
}

}  // namespace chorus
