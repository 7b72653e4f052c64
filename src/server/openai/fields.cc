#include "server/openai/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace chorus {
namespace {

std::string shown(const Json& value) {
  constexpr std::size_t bytes_max = 80;
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > bytes_max) text = text.substr(0, bytes_max - 3) + "...";
  return text;
}

// false, 0, [], {} and "" say that a feature is not wanted.
bool means_not(const Json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();
}

}  // namespace

const Json* Fields::find(const char* name) const {
  const auto found = object_.find(name);
  if (found == object_.end()) return nullptr;
  if (std::ranges::find(asked_, std::string_view(name)) == asked_.end()) asked_.emplace_back(found.key());
  return found->is_null() ? nullptr : &*found;
}

void Fields::fail(std::string_view name, std::string message, int status) {
  if (!error_) error_ = ApiError{status, std::move(message), std::string(name)};
}

bool Fields::flag(const char* name, bool otherwise) {
  const Json* const value = find(name);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  fail(name, fmt::format("{} is {}: give true or false", name, shown(*value)));
  return otherwise;
}

std::optional<std::int64_t> Fields::whole(const char* name, std::int64_t low, std::int64_t high) {
  const Json* const value = find(name);
  if (value == nullptr) return std::nullopt;
  constexpr double exact_max = 9007199254740992;  // 2^53
  std::optional<std::int64_t> number;
  if (value->is_number_float()) {
    const double real = value->get<double>();
    if (std::abs(real) <= exact_max && real == std::floor(real)) number = static_cast<std::int64_t>(real);
  } else if (value->is_number_integer() && (!value->is_number_unsigned() || value->get<std::uint64_t>() <= INT64_MAX)) {
    number = value->get<std::int64_t>();
  }
  if (number && *number >= low && *number <= high) return number;
  fail(name, fmt::format("{} is {}: give a whole number from {} to {}", name, shown(*value), low, high));
  return std::nullopt;
}

std::optional<std::string> Fields::text(const char* name) {
  const Json* const value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  fail(name, fmt::format("{} is {}: give a string", name, shown(*value)));
  return std::nullopt;
}

const Json* Fields::list(const char* name) {
  const Json* const value = find(name);
  if (value == nullptr || value->is_array()) return value;
  fail(name, fmt::format("{} is {}: give a list", name, shown(*value)));
  return nullptr;
}

const Json* Fields::object(const char* name) {
  const Json* const value = find(name);
  if (value == nullptr || value->is_object()) return value;
  fail(name, fmt::format("{} is {}: give an object", name, shown(*value)));
  return nullptr;
}

void Fields::refuse(const char* name, const char* instead) {
  const Json* const value = find(name);
  if (value == nullptr || means_not(*value)) return;
  fail(name,
       fmt::format("{} is not supported{}{}", name, instead == nullptr ? "" : ": ", instead == nullptr ? "" : instead));
}

}  // namespace chorus
