#include "json/member.h"

#include <nlohmann/json.hpp>

namespace chorus {

const Json& member(const Json& value, const std::string& name) {
  static const Json nothing;
  if (!value.is_object()) return nothing;
  const auto found = value.find(name);
  return found == value.end() ? nothing : *found;
}

}  // namespace chorus
