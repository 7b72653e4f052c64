#include "parallel/store/store_check.h"

#include <charconv>

#include "parallel/store/store.h"

namespace chorus {

Result<void> check_store_key(const std::string& key) {
  if (key.empty() || key.size() > store_key_bytes_max) {
    return fail(ErrorCode::invalid_argument, "a store's key has 1 to {} bytes, this one {}", store_key_bytes_max,
                key.size());
  }
  return {};
}

Result<void> check_store_value(const std::string& key, std::string_view value) {
  CHORUS_TRY_VOID(check_store_key(key));
  if (value.size() > store_value_bytes_max) {
    return fail(ErrorCode::invalid_argument, "store key {}: a value of {} bytes is over the limit of {}", key,
                value.size(), store_value_bytes_max);
  }
  return {};
}

Result<void> check_store_keys(std::span<const std::string> keys) {
  if (keys.size() > store_wait_keys_max) {
    return fail(ErrorCode::invalid_argument, "{} store keys in one call, the limit is {}", keys.size(),
                store_wait_keys_max);
  }
  for (const std::string& key : keys) CHORUS_TRY_VOID(check_store_key(key));
  return {};
}

Result<std::int64_t> add_to_counter(const std::string& key, std::string_view value, std::int64_t delta) {
  std::int64_t before = 0, after = 0;
  const char* end = value.data() + value.size();
  if (!value.empty()) {
    const auto parsed = std::from_chars(value.data(), end, before);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      return fail(ErrorCode::invalid_argument, "store key {} holds no number ({} bytes), so nothing can be added to it",
                  key, value.size());
    }
  }
  if (__builtin_add_overflow(before, delta, &after)) {
    return fail(ErrorCode::invalid_argument, "store key {}: {} + {} does not fit in 64 bits", key, before, delta);
  }
  return after;
}

Error store_deadline_error(std::span<const std::string> keys, int timeout_ms) {
  if (keys.size() == 1) {
    return fail(ErrorCode::deadline_exceeded, "store key {} was not set within {} ms", keys.front(), timeout_ms);
  }
  return fail(ErrorCode::deadline_exceeded, "not all of {} store keys ({} ..) were set within {} ms", keys.size(),
              keys.empty() ? "" : keys.front(), timeout_ms);
}

}  // namespace chorus
