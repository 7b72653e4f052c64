#include "server/openai/openapi.h"

#include "openapi_text.h"

namespace chorus {

std::string openapi_json(std::string_view version) {
  constexpr std::string_view placeholder = "VERSION";
  std::string text = openapi_text;
  return text.replace(text.find(placeholder), placeholder.size(), version);
}

}  // namespace chorus
