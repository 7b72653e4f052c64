#include "json/json.h"

#include <simdjson.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "json/file.h"

namespace chorus {
namespace {

namespace dom = simdjson::dom;

// simdjson's document tree does not tell where it failed. nlohmann's parser does, so a text that was refused is read
// once more by it, for the position alone.
class ErrorPosition : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    out_of_range = error.id == number_out_of_range;
    byte = position == 0 ? 0 : position - 1;
    return false;
  }
  std::optional<std::size_t> byte;
  bool out_of_range = false;

 private:
  static constexpr int number_out_of_range = 406;
};

ErrorPosition find_error(std::string_view text) {
  ErrorPosition found;
  Json::sax_parse(text.begin(), text.end(), &found);
  return found;
}

// " at line 3, byte 41", or nothing when the position is not known.
std::string describe_position(const ErrorPosition& found, std::string_view text) {
  if (!found.byte) return "";
  const std::size_t byte = std::min(*found.byte, text.size());
  const auto lines = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(byte), '\n');
  return fmt::format(" at line {}, byte {}", lines + 1, byte);
}

Error too_deep(const JsonLimits& limits) {
  return fail(ErrorCode::invalid_argument, "JSON is nested deeper than the limit of {} levels", limits.depth_max);
}

Error parse_failure(simdjson::error_code code, std::string_view text, const JsonLimits& limits) {
  if (code == simdjson::DEPTH_ERROR) return too_deep(limits);
  const ErrorPosition found = find_error(text);
  const bool too_large = code == simdjson::NUMBER_ERROR && (!found.byte || found.out_of_range);
  const std::string what = too_large ? "a number beyond 64-bit integers or double" : simdjson::error_message(code);
  return fail(ErrorCode::invalid_argument, "invalid JSON{}: {}", describe_position(found, text), what);
}

constexpr std::size_t few_keys = 12;  // below this, comparing all pairs is cheaper than sorting

Result<void> refuse_duplicate_keys(dom::object object, std::size_t size) {
  std::vector<std::string_view> keys;
  keys.reserve(size);
  for (const auto& field : object) {
    if (size <= few_keys && std::find(keys.begin(), keys.end(), field.key) != keys.end()) {
      return fail(ErrorCode::invalid_argument, "duplicate key \"{}\" in a JSON object", field.key);
    }
    keys.push_back(field.key);
  }
  if (size <= few_keys) return {};
  std::sort(keys.begin(), keys.end());
  const auto twin = std::adjacent_find(keys.begin(), keys.end());
  if (twin == keys.end()) return {};
  return fail(ErrorCode::invalid_argument, "duplicate key \"{}\" in a JSON object", *twin);
}

// `levels`: how many nested objects and arrays are still allowed. simdjson's own depth limit lets an empty innermost
// container through, so the exact one is held here; both bound the recursion.
Result<Json> convert(dom::element element, const JsonLimits& limits, int levels);

Result<Json> convert_object(dom::object object, const JsonLimits& limits, int levels) {
  if (levels <= 0) return too_deep(limits);
  Json json = Json::object();
  auto& fields = json.get_ref<Json::object_t&>();
  std::size_t size = 0;
  for (auto field = object.begin(); field != object.end(); ++field) ++size;  // size() saturates at 2^24 - 1
  CHORUS_TRY_VOID(refuse_duplicate_keys(object, size));
  fields.reserve(size);
  for (const auto& [key, element] : object) {
    CHORUS_TRY(Json value, convert(element, limits, levels - 1));
    // The vector's emplace_back: ordered_map's own emplace would look through all keys each time.
    fields.emplace_back(std::string(key), std::move(value));
  }
  return json;
}

Result<Json> convert_array(dom::array array, const JsonLimits& limits, int levels) {
  if (levels <= 0) return too_deep(limits);
  Json json = Json::array();
  auto& values = json.get_ref<Json::array_t&>();
  for (const dom::element element : array) {
    CHORUS_TRY(Json value, convert(element, limits, levels - 1));
    values.push_back(std::move(value));
  }
  return json;
}

Result<Json> convert(dom::element element, const JsonLimits& limits, int levels) {
  switch (element.type()) {
    case dom::element_type::OBJECT:
      return convert_object(dom::object(element), limits, levels);
    case dom::element_type::ARRAY:
      return convert_array(dom::array(element), limits, levels);
    case dom::element_type::STRING:
      return Json(std::string(std::string_view(element)));
    case dom::element_type::INT64:
      return Json(std::int64_t(element));
    case dom::element_type::UINT64:
      return Json(std::uint64_t(element));
    case dom::element_type::DOUBLE:
      return Json(double(element));
    case dom::element_type::BOOL:
      return Json(bool(element));
    case dom::element_type::NULL_VALUE:
      return Json(nullptr);
  }
  return fail(ErrorCode::internal, "JSON parser gave an unknown kind of value");
}

// `padded`: whether the bytes behind `text` may be read (see read_file).
Result<Json> parse(std::string_view text, const JsonLimits& limits, bool padded) {
  if (text.size() > limits.bytes_max) {
    return fail(ErrorCode::invalid_argument, "JSON text of {} bytes is over the limit of {} bytes", text.size(),
                limits.bytes_max);
  }
  dom::parser parser(limits.bytes_max);
  // simdjson counts the document itself as a level.
  const auto depth_max = static_cast<std::size_t>(std::max(limits.depth_max, 0)) + 1;
  auto code = parser.allocate(std::max<std::size_t>(text.size(), 1), depth_max);
  if (code != simdjson::SUCCESS) {
    return fail(ErrorCode::resource_exhausted, "no memory for JSON text of {} bytes", text.size());
  }
  dom::element root;
  code = parser.parse(text.data(), text.size(), !padded).get(root);
  if (code != simdjson::SUCCESS) return parse_failure(code, text, limits);
  return convert(root, limits, limits.depth_max);
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  return parse(text, limits, false);
}

Result<Json> read_json_file(const std::string& path, const JsonLimits& limits) {
  CHORUS_TRY(const std::string text, read_file(path, limits.bytes_max));
  auto json = parse(text, limits, text.capacity() >= text.size() + simdjson::SIMDJSON_PADDING);
  if (!json) return with_context(json.error(), path);
  return json;
}

Result<void> for_each_json_line(std::string_view text,
                                const std::function<Result<void>(std::size_t line, Json&& value)>& take,
                                const JsonLimits& limits) {
  std::size_t number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (is_blank(line)) continue;
    auto value = parse_json(line, limits);
    if (!value) return with_context(value.error(), fmt::format("line {}", number));
    auto taken = take(number, std::move(value).value());
    if (!taken) return with_context(taken.error(), fmt::format("line {}", number));
  }
  return {};
}

}  // namespace chorus
