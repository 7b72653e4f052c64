#include "client/model_name.h"

#include <nlohmann/json.hpp>

#include "json/json.h"
#include "json/member.h"

namespace chorus {

Result<std::string> first_model(const Endpoint& endpoint, const std::function<bool()>& stop) {
  CHORUS_TRY(const std::string body, fetch(endpoint, "/v1/models", "", stop));
  const Result<Json> models = parse_json(body);
  if (models.ok()) {
    const Json& list = member(*models, "data");
    if (list.is_array() && !list.empty()) {
      const Json& id = member(list.front(), "id");
      if (id.is_string()) return id.get<std::string>();
    }
  }
  return fail(ErrorCode::invalid_argument, "{}/v1/models names no model: is this an OpenAI-compatible server?",
              endpoint.text());
}

}  // namespace chorus
