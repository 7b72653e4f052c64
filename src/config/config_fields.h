// Typed, bounded reading of one JSON object of a configuration file. The first thing wrong is kept and everything after
// it is read as its fallback, so that a reader is a plain list of fields with one check at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "json/json.h"

namespace chorus {

class ConfigFields {
 public:
  // `where` is put before every message: "DIR/config.json". Both outlive this.
  ConfigFields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  // null counts as absent in all of these but is_null(), as it does for Hugging Face where the default is None.
  bool has(const char* key) const { return find(key) != nullptr; }
  bool is_null(const char* key) const;
  const Json* find(const char* key) const;

  std::optional<std::int64_t> integer(const char* key, std::int64_t min, std::int64_t max);
  std::int64_t integer_or(const char* key, std::int64_t min, std::int64_t max, std::int64_t fallback);
  std::int64_t required_integer(const char* key, std::int64_t min, std::int64_t max);
  // An integer, written as 5 or 5.0.
  std::optional<int> whole_number(const char* key, int min, int max);
  // Finite, min <= value <= max. Integers are numbers too.
  std::optional<double> number(const char* key, double min, double max);
  double number_or(const char* key, double min, double max, double fallback);
  bool flag_or(const char* key, bool fallback);
  std::optional<std::string> text(const char* key);
  std::vector<double> numbers(const char* key, std::size_t count_max, double min, double max);
  // One integer or a list of them; empty when absent.
  std::vector<std::int32_t> integers(const char* key, std::size_t count_max, std::int32_t min);
  std::vector<std::string> texts(const char* key, std::size_t count_max);

  const std::string& where() const { return where_; }
  // Records "WHERE: MESSAGE" unless something was wrong before.
  void refuse(const std::string& message);
  // Records that the value at `key` is not what is `accepted`.
  void refuse_value(const char* key, const Json& value, const std::string& accepted);
  Result<void> finish() const { return error_ ? Result<void>(*error_) : Result<void>(); }

 private:
  const Json& object_;
  std::string where_;
  std::optional<Error> error_;
};

}  // namespace chorus
