// JSON: reading with simdjson, values as nlohmann's ordered_json, writing for output lines that must be exact.
// Only forward declarations here: a .cc that looks into values includes <nlohmann/json.hpp> itself.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chorus {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::size_t bytes_max = 256u << 20;
  int depth_max = 64;
};

// Strict RFC 8259, UTF-8 checked (also what \u escapes give). Errors: a duplicate key in an object, an integer beyond
// 64 bits, a number beyond double. The message has the line and the byte offset, or the key. Any number of threads.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});
// The message begins with `path`.
Result<Json> read_json_file(const std::string& path, const JsonLimits& limits = {});

// One value per line, lines of white space alone skipped: calls `take` with the line's number (from 1) and its value.
// The first bad line, or the first error of `take`, ends the reading; the message names the line. `limits` holds for
// each line.
Result<void> for_each_json_line(std::string_view text,
                                const std::function<Result<void>(std::size_t line, Json&& value)>& take,
                                const JsonLimits& limits = {});

enum class JsonKind : std::uint8_t { null, boolean, number, string, array, object };

// One object after the other, of which no value is built that nobody asks for: for lines of input, of which there are
// millions.
class JsonObjectReader {
 public:
  explicit JsonObjectReader(const JsonLimits& limits = {});
  JsonObjectReader(JsonObjectReader&& other) noexcept;
  JsonObjectReader& operator=(JsonObjectReader&&) = delete;
  ~JsonObjectReader();

  // Reads an object, in place of the one before. The errors of parse_json(), and "not a JSON object".
  Result<void> read(std::string_view text);
  std::size_t size() const;  // members, in the text's order
  std::optional<std::size_t> find(std::string_view key) const;
  // Of member i: views and values until the next read().
  std::string_view key(std::size_t i) const;
  JsonKind kind(std::size_t i) const;
  std::string_view text(std::size_t i) const;  // of a string
  Json value(std::size_t i) const;             // as parse_json() gives it
  // Of an array of whole numbers: appends them; those above INT64_MAX as that. False: it is something else.
  bool integers(std::size_t i, std::vector<std::int64_t>* numbers) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Appends JSON text to a string. Floats are the shortest digits that read back to the same value (float or double);
// a whole number keeps its ".0"; NaN and infinities become null. Strings must be UTF-8; bytes that are not become
// U+FFFD.
class JsonWriter {
 public:
  explicit JsonWriter(std::string* out) : out_(out) {}
  JsonWriter& begin_object();
  JsonWriter& end_object();
  JsonWriter& begin_array();
  JsonWriter& end_array();
  JsonWriter& key(std::string_view name);
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(float number);
  JsonWriter& value(double number);
  JsonWriter& value(std::int64_t number);
  JsonWriter& value(std::uint64_t number);
  JsonWriter& value(int number) { return value(static_cast<std::int64_t>(number)); }
  JsonWriter& value(std::uint32_t number) { return value(static_cast<std::uint64_t>(number)); }
  JsonWriter& value(bool flag);
  JsonWriter& null();
  JsonWriter& raw(const Json& value);

 private:
  void separate();
  std::string* out_;
  bool first_ = true;  // nothing yet in the innermost container
  bool after_key_ = false;
};

}  // namespace chorus
