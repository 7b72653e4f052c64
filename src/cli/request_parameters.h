// The sampling parameters that a person gives a client, by their names in the API.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

class RequestParameters {
 public:
  // "temperature", "0.5". The value is JSON, or else a string; "": no longer given. What the client says itself (the
  // model, the prompt, stream, n) cannot be set.
  Result<void> set(const std::string& name, const std::string& value);
  // NAME=VALUE each, as --set has them.
  Result<void> set_all(const std::vector<std::string>& settings);
  const Json& values() const { return values_; }

 private:
  Json values_ = Json::object();
};

}  // namespace chorus
