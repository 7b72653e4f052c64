// Reading a request's JSON object by its fields. What is wrong first is kept, and what is read after it are defaults:
// a reader asks for everything and looks once.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "json/json.h"

namespace chorus {

// What OpenAI's error object says, see server/http/response.h.
struct ApiError {
  int status = 400;
  std::string message;
  std::string param;  // the field; empty: of none
};
template <typename T>
using Parsed = std::variant<T, ApiError>;

class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  const Json* find(const char* name) const;  // nullptr: not given, or null
  bool flag(const char* name, bool otherwise);
  std::optional<std::int64_t> whole(const char* name, std::int64_t low, std::int64_t high);  // 5.0 is 5
  std::optional<std::string> text(const char* name);
  const Json* list(const char* name);
  const Json* object(const char* name);
  // A feature that is known and not there: given with any value but those that mean "not".
  void refuse(const char* name, const char* instead = nullptr);

  // Members that nobody has asked for: fields that are not known here.
  std::size_t unknown() const { return object_.size() - asked_.size(); }

  void fail(std::string_view name, std::string message, int status = 400);
  bool ok() const { return !error_.has_value(); }
  const ApiError& error() const { return error_.value(); }

 private:
  const Json& object_;
  mutable std::vector<std::string_view> asked_;  // of the object's members; few
  std::optional<ApiError> error_;
};

}  // namespace chorus
