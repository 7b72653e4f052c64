// Checked reading of a workflow's objects: each key is known, of the right type, and errors say where.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

class JsonObject {
 public:
  // `where`: what messages begin with, "wf.json: node tell: params".
  JsonObject(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  // Fails on anything but an object, or on a key not in `known` (with the nearest).
  Result<void> check(const std::vector<std::string>& known) const;
  Result<std::string> text(const char* key) const;
  Result<std::string> text(const char* key, const std::string& otherwise) const;
  Result<double> number(const char* key, double otherwise, double least) const;
  Result<std::int64_t> integer(const char* key, std::int64_t otherwise, std::int64_t least, std::int64_t most) const;
  const Json* find(const char* key) const;  // nullptr when it is not there or null
  const std::string& where() const { return where_; }

 private:
  const Json& object_;
  std::string where_;
};

}  // namespace chorus
