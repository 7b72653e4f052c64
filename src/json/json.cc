#include "json/json.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/check.h"
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

Error duplicate_key(std::string_view key) {
  return fail(ErrorCode::invalid_argument, "duplicate key \"{}\" in a JSON object", key);
}

Result<void> refuse_duplicate_keys(dom::object object, std::size_t size) {
  if (size <= few_keys) {
    std::array<std::string_view, few_keys> keys;
    auto end = keys.begin();
    for (const auto& field : object) {
      if (std::find(keys.begin(), end, field.key) != end) return duplicate_key(field.key);
      *end++ = field.key;
    }
    return {};
  }
  std::vector<std::string_view> keys;
  keys.reserve(size);
  for (const auto& field : object) keys.push_back(field.key);
  std::sort(keys.begin(), keys.end());
  const auto twin = std::adjacent_find(keys.begin(), keys.end());
  return twin == keys.end() ? Result<void>() : duplicate_key(*twin);
}

std::size_t size_of(dom::object object) {  // its own size() saturates at 2^24 - 1
  std::size_t size = 0;
  for (auto field = object.begin(); field != object.end(); ++field) ++size;
  return size;
}

// `levels`: how many nested objects and arrays are still allowed. simdjson's own depth limit lets an empty innermost
// container through, so the exact one is held here; both bound the recursion.
Result<Json> convert(dom::element element, const JsonLimits& limits, int levels);

Result<Json> convert_object(dom::object object, const JsonLimits& limits, int levels) {
  if (levels <= 0) return too_deep(limits);
  Json json = Json::object();
  auto& fields = json.get_ref<Json::object_t&>();
  const std::size_t size = size_of(object);
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

// What convert() refuses, without building anything.
Result<void> check(dom::element element, const JsonLimits& limits, int levels) {
  if (element.is_array()) {
    if (levels <= 0) return too_deep(limits);
    for (const dom::element entry : dom::array(element)) CHORUS_TRY_VOID(check(entry, limits, levels - 1));
  } else if (element.is_object()) {
    if (levels <= 0) return too_deep(limits);
    const dom::object object(element);
    CHORUS_TRY_VOID(refuse_duplicate_keys(object, size_of(object)));
    for (const auto& field : object) CHORUS_TRY_VOID(check(field.value, limits, levels - 1));
  }
  return {};
}

Result<void> reserve(dom::parser& parser, std::size_t bytes, const JsonLimits& limits) {
  // simdjson counts the document itself as a level.
  const auto depth_max = static_cast<std::size_t>(std::max(limits.depth_max, 0)) + 1;
  if (parser.allocate(std::max<std::size_t>(bytes, 1), depth_max) == simdjson::SUCCESS) return {};
  return fail(ErrorCode::resource_exhausted, "no memory for JSON text of {} bytes", bytes);
}

Result<void> refuse_too_long(std::string_view text, const JsonLimits& limits) {
  if (text.size() <= limits.bytes_max) return {};
  return fail(ErrorCode::invalid_argument, "JSON text of {} bytes is over the limit of {} bytes", text.size(),
              limits.bytes_max);
}

// The parser, which has reserved enough, keeps the tree until its next text. `padded`: whether the bytes behind `text`
// may be read (see read_file).
Result<dom::element> parse(dom::parser& parser, std::string_view text, const JsonLimits& limits, bool padded) {
  dom::element root;
  const auto code = parser.parse(text.data(), text.size(), !padded).get(root);
  if (code != simdjson::SUCCESS) return parse_failure(code, text, limits);
  return root;
}

Result<Json> parse_and_convert(std::string_view text, const JsonLimits& limits, bool padded) {
  CHORUS_TRY_VOID(refuse_too_long(text, limits));
  dom::parser parser(limits.bytes_max);
  CHORUS_TRY_VOID(reserve(parser, text.size(), limits));
  CHORUS_TRY(const dom::element root, parse(parser, text, limits, padded));
  return convert(root, limits, limits.depth_max);
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  return parse_and_convert(text, limits, false);
}

Result<Json> read_json_file(const std::string& path, const JsonLimits& limits) {
  CHORUS_TRY(const std::string text, read_file(path, limits.bytes_max));
  auto json = parse_and_convert(text, limits, text.capacity() >= text.size() + simdjson::SIMDJSON_PADDING);
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

namespace {

// What a JsonObjectReader has memory for at any time; a longer text takes more until the next one.
constexpr std::size_t bytes_kept_max = 64 << 10;

}  // namespace

struct JsonObjectReader::State {
  explicit State(const JsonLimits& given) : limits(given), parser(given.bytes_max) {}
  const JsonLimits limits;
  dom::parser parser;
  std::vector<dom::key_value_pair> members;
};

JsonObjectReader::JsonObjectReader(const JsonLimits& limits) : state_(std::make_unique<State>(limits)) {}
JsonObjectReader::JsonObjectReader(JsonObjectReader&& other) noexcept = default;
JsonObjectReader::~JsonObjectReader() = default;

Result<void> JsonObjectReader::read(std::string_view text) {
  State& state = *state_;
  state.members.clear();
  CHORUS_TRY_VOID(refuse_too_long(text, state.limits));
  if (text.size() > state.parser.capacity() || state.parser.capacity() > bytes_kept_max) {
    CHORUS_TRY_VOID(reserve(state.parser, text.size() <= bytes_kept_max ? bytes_kept_max : text.size(), state.limits));
  }
  CHORUS_TRY(const dom::element root, parse(state.parser, text, state.limits, false));
  CHORUS_TRY_VOID(check(root, state.limits, state.limits.depth_max));
  if (!root.is_object()) return fail(ErrorCode::invalid_argument, "not a JSON object");
  for (const auto& field : dom::object(root)) state.members.push_back(field);
  return {};
}

std::size_t JsonObjectReader::size() const {
  return state_->members.size();
}

std::optional<std::size_t> JsonObjectReader::find(std::string_view key) const {
  for (std::size_t i = 0; i < size(); ++i) {
    if (this->key(i) == key) return i;
  }
  return std::nullopt;
}

std::string_view JsonObjectReader::key(std::size_t i) const {
  return state_->members[i].key;
}

JsonKind JsonObjectReader::kind(std::size_t i) const {
  switch (state_->members[i].value.type()) {
    case dom::element_type::OBJECT:
      return JsonKind::object;
    case dom::element_type::ARRAY:
      return JsonKind::array;
    case dom::element_type::STRING:
      return JsonKind::string;
    case dom::element_type::BOOL:
      return JsonKind::boolean;
    case dom::element_type::NULL_VALUE:
      return JsonKind::null;
    default:
      return JsonKind::number;
  }
}

std::string_view JsonObjectReader::text(std::size_t i) const {
  return state_->members[i].value.get_string().value_unsafe();
}

bool JsonObjectReader::integers(std::size_t i, std::vector<std::int64_t>* numbers) const {
  dom::array array;
  if (state_->members[i].value.get_array().get(array) != simdjson::SUCCESS) return false;
  for (const dom::element entry : array) {
    if (entry.is_int64()) {
      numbers->push_back(entry.get_int64().value_unsafe());
    } else if (entry.is_uint64()) {
      numbers->push_back(INT64_MAX);
    } else {
      return false;
    }
  }
  return true;
}

Json JsonObjectReader::value(std::size_t i) const {
  auto value = convert(state_->members[i].value, state_->limits, state_->limits.depth_max);
  CHECK(value.ok(), "member {}: {}", i, value.error().message);  // check() has passed it
  return std::move(*value);
}

}  // namespace chorus
