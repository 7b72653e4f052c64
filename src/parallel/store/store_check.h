// What all kinds of Store have in common: bounds, the counter's text, deadlines. Private to this room.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace chorus {

Result<void> check_store_key(const std::string& key);
Result<void> check_store_value(const std::string& key, std::string_view value);
Result<void> check_store_keys(std::span<const std::string> keys);

// The value of the counter `key` plus `delta`; `value` is what is stored, empty for nothing.
Result<std::int64_t> add_to_counter(const std::string& key, std::string_view value, std::int64_t delta);

// "waited 5000 ms for key rank/3", or for the first of several.
Error store_deadline_error(std::span<const std::string> keys, int timeout_ms);

}  // namespace chorus
