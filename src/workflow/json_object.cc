#include "workflow/json_object.h"

#include <algorithm>
#include <cmath>

#include "config/nearest_name.h"

namespace chorus {

Result<void> JsonObject::check(const std::vector<std::string>& known) const {
  if (!object_.is_object()) return fail(ErrorCode::invalid_argument, "{}: must be a JSON object", where_);
  for (const auto& [key, value] : object_.items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    const auto near = nearest_name(key, known);
    return fail(
        ErrorCode::invalid_argument, "{}: unknown key \"{}\"{}", where_, key,
        near ? fmt::format("; did you mean \"{}\"?", *near) : fmt::format("; known are {}", fmt::join(known, ", ")));
  }
  return {};
}

const Json* JsonObject::find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

Result<std::string> JsonObject::text(const char* key) const {
  if (find(key) == nullptr) return fail(ErrorCode::invalid_argument, "{}: \"{}\" is missing", where_, key);
  return text(key, "");
}

Result<std::string> JsonObject::text(const char* key, const std::string& otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) return fail(ErrorCode::invalid_argument, "{}: \"{}\" must be a string", where_, key);
  return value->get<std::string>();
}

Result<double> JsonObject::number(const char* key, double otherwise, double least) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_number() || !(value->get<double>() >= least)) {
    return fail(ErrorCode::invalid_argument, "{}: \"{}\" is {}, must be a number of at least {}", where_, key,
                value->dump(), least);
  }
  return value->get<double>();
}

Result<std::int64_t> JsonObject::integer(const char* key, std::int64_t otherwise, std::int64_t least,
                                         std::int64_t most) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  const bool fits =
      value->is_number_integer() &&
      !(value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) &&
      value->get<std::int64_t>() >= least && value->get<std::int64_t>() <= most;
  if (!fits) {
    return fail(ErrorCode::invalid_argument, "{}: \"{}\" is {}, must be an integer from {} to {}", where_, key,
                value->dump(), least, most);
  }
  return value->get<std::int64_t>();
}

}  // namespace chorus
