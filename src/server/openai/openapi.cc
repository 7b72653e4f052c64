#include "server/openai/openapi.h"

namespace chorus {

extern const std::string_view openapi_text;  // openapi.json: made by the build

std::string openapi_json(std::string_view version) {
  constexpr std::string_view placeholder = "VERSION";
  std::string text(openapi_text);
  return text.replace(text.find(placeholder), placeholder.size(), version);
}

}  // namespace chorus
