#include "config/config_fields.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace chorus {
namespace {

// A value as it may stand in a one-line message: cut, since a hostile file may hold megabytes there.
std::string shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

// The value as an int64 if it is a JSON integer (not true, not 1.0) in the bounds.
std::optional<std::int64_t> as_integer(const Json& value, std::int64_t min, std::int64_t max) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
    return std::nullopt;
  const auto number = value.get<std::int64_t>();
  if (number < min || number > max) return std::nullopt;
  return number;
}

std::optional<double> as_number(const Json& value, double min, double max) {
  if (!value.is_number()) return std::nullopt;
  const auto number = value.get<double>();
  if (!std::isfinite(number) || number < min || number > max) return std::nullopt;
  return number;
}

}  // namespace

bool ConfigFields::is_null(const char* key) const {
  if (!object_.is_object()) return false;
  const auto found = object_.find(key);
  return found != object_.end() && found->is_null();
}

const Json* ConfigFields::find(const char* key) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigFields::refuse(const std::string& message) {
  if (!error_) error_ = fail(ErrorCode::invalid_argument, "{}: {}", where_, message);
}

void ConfigFields::refuse_value(const char* key, const Json& value, const std::string& accepted) {
  refuse(fmt::format("{} is {}; accepted: {}", key, shown(value), accepted));
}

std::optional<std::int64_t> ConfigFields::integer(const char* key, std::int64_t min, std::int64_t max) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = as_integer(*value, min, max);
  if (!number) refuse_value(key, *value, fmt::format("an integer from {} to {}", min, max));
  return number;
}

std::int64_t ConfigFields::integer_or(const char* key, std::int64_t min, std::int64_t max, std::int64_t fallback) {
  return integer(key, min, max).value_or(fallback);
}

std::int64_t ConfigFields::required_integer(const char* key, std::int64_t min, std::int64_t max) {
  if (!has(key)) refuse(fmt::format("{} is missing; needed: an integer from {} to {}", key, min, max));
  return integer_or(key, min, max, min);
}

std::optional<double> ConfigFields::number(const char* key, double min, double max) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = as_number(*value, min, max);
  if (!number) refuse_value(key, *value, fmt::format("a number from {} to {}", min, max));
  return number;
}

std::optional<int> ConfigFields::whole_number(const char* key, int min, int max) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = as_number(*value, min, max);
  if (number && *number == std::floor(*number)) return static_cast<int>(*number);
  refuse_value(key, *value, fmt::format("a whole number from {} to {}", min, max));
  return std::nullopt;
}

double ConfigFields::number_or(const char* key, double min, double max, double fallback) {
  return number(key, min, max).value_or(fallback);
}

bool ConfigFields::flag_or(const char* key, bool fallback) {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    refuse_value(key, *value, "true or false");
    return fallback;
  }
  return value->get<bool>();
}

std::optional<std::string> ConfigFields::text(const char* key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    refuse_value(key, *value, "a string");
    return std::nullopt;
  }
  return value->get<std::string>();
}

std::vector<double> ConfigFields::numbers(const char* key, std::size_t count_max, double min, double max) {
  std::vector<double> result;
  const Json* value = find(key);
  if (value == nullptr) return result;
  const std::string accepted = fmt::format("a list of at most {} numbers from {} to {}", count_max, min, max);
  if (!value->is_array() || value->size() > count_max) {
    refuse_value(key, *value, accepted);
    return result;
  }
  for (const Json& element : *value) {
    const auto number = as_number(element, min, max);
    if (!number) refuse_value(key, element, accepted);
    result.push_back(number.value_or(min));
  }
  return result;
}

std::vector<std::int32_t> ConfigFields::integers(const char* key, std::size_t count_max, std::int32_t min) {
  std::vector<std::int32_t> result;
  const Json* value = find(key);
  if (value == nullptr) return result;
  const std::string accepted =
      fmt::format("an integer from {} to {}, or a list of at most {}", min, INT32_MAX, count_max);
  const Json list = value->is_array() ? *value : Json::array({*value});
  if (list.size() > count_max) {
    refuse_value(key, *value, accepted);
    return result;
  }
  for (const Json& element : list) {
    const auto number = as_integer(element, min, INT32_MAX);
    if (!number) refuse_value(key, element, accepted);
    result.push_back(static_cast<std::int32_t>(number.value_or(min)));
  }
  return result;
}

std::vector<std::string> ConfigFields::texts(const char* key, std::size_t count_max) {
  std::vector<std::string> result;
  const Json* value = find(key);
  if (value == nullptr) return result;
  if (!value->is_array() || value->size() > count_max) {
    refuse_value(key, *value, fmt::format("a list of at most {} strings", count_max));
    return result;
  }
  for (const Json& element : *value) {
    if (!element.is_string()) {
      refuse_value(key, element, "a list of strings");
      return result;
    }
    result.push_back(element.get<std::string>());
  }
  return result;
}

}  // namespace chorus
