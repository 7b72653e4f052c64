// Reading the small parts of a configuration file: each error names the field and what it must be.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

// nullptr when `object` is no object, or the key is missing or null.
inline const Json* find_field(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

inline Result<std::string> read_string(const Json& object, std::string_view key) {
  const Json* const value = find_field(object, key);
  if (value != nullptr && value->is_string()) return value->get<std::string>();
  return fail(ErrorCode::invalid_argument, "{}: must be a string", key);
}

inline Result<bool> read_bool(const Json& object, std::string_view key, bool fallback) {
  const Json* const value = find_field(object, key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  return fail(ErrorCode::invalid_argument, "{}: must be true or false", key);
}

inline Result<std::int64_t> read_whole_number(const Json& object, std::string_view key, std::int64_t min,
                                              std::int64_t max) {
  const Json* const value = find_field(object, key);
  if (value != nullptr && value->is_number_integer()) {
    const bool huge = value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(max);
    const std::int64_t number = huge ? max : value->get<std::int64_t>();
    if (!huge && number >= min && number <= max) return number;
  }
  return fail(ErrorCode::invalid_argument, "{}: must be a whole number from {} to {}", key, min, max);
}

inline Result<const Json*> read_array(const Json& object, std::string_view key) {
  const Json* const value = find_field(object, key);
  if (value != nullptr && value->is_array()) return value;
  return fail(ErrorCode::invalid_argument, "{}: must be an array", key);
}

// How many steps the parts of one pipeline may still have, sequences in sequences included: real ones have up to ten.
class PipelineSteps {
 public:
  static constexpr int max = 64;
  static constexpr int nesting_max = 8;
  // Counts one more step, at this depth of Sequences.
  Result<void> take(int nesting) {
    if (nesting > nesting_max) {
      return fail(ErrorCode::invalid_argument, "Sequence nested over {} deep", nesting_max);
    }
    if (++count_ > max) return fail(ErrorCode::invalid_argument, "more than {} steps", max);
    return {};
  }

 private:
  int count_ = 0;
};

}  // namespace chorus
