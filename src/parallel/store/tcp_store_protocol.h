// What both ends of the TCP store agree on. A request is a kind and its arguments; integers are in host order (the two
// ends have the same one), texts follow a u64 length. Private to this room.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace chorus {

inline constexpr std::uint32_t tcp_store_mark = 0x3C85F7CE;
// torch's client puts it before every key.
inline constexpr char tcp_store_key_prefix = '/';

enum class StoreRequest : std::uint8_t {
  validate,     // u32 mark; the first of a connection; no answer
  set,          // key, value; no answer
  compare_set,  // key, expected, desired; answer: value
  get,          // key that is there; answer: value
  add,          // key, i64; answer: i64
  check,        // u64 count, keys; answer: u8, 0 when all are there
  wait,         // u64 count, keys; answer: u8 0 as soon as all are there
  key_count,    // answer: i64
  delete_key,   // key; answer: i64 deleted
  append,       // key, value; no answer
  multi_get,    // u64 count, keys; answer: values
  multi_set,    // u64 count, (key, value) ..; no answer
  cancel_wait,  // answer: u8 1
  ping,         // u32; answer: the same u32
};

template <typename T>
void append_store_value(std::string* bytes, T value) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof value);
}

inline void append_store_text(std::string* bytes, std::string_view text) {
  append_store_value<std::uint64_t>(bytes, text.size());
  bytes->append(text);
}

}  // namespace chorus
