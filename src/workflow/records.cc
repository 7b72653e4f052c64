#include "workflow/records.h"

#include <filesystem>
#include <unordered_map>

#include "json/file.h"
#include "json/utf8.h"

namespace chorus {
namespace {

constexpr std::size_t file_bytes_max = std::size_t{4} << 30;

Result<std::vector<Json>> load_json_lines(const std::string& path) {
  CHORUS_TRY(const std::string text, read_text_file(path, file_bytes_max));
  std::vector<Json> records;
  const auto read = for_each_json_line(text, [&](std::size_t line, Json&& value) -> Result<void> {
    if (!value.is_object()) return fail(ErrorCode::invalid_argument, "line {}: not a JSON object", line);
    records.push_back(std::move(value));
    return {};
  });
  if (!read.ok()) return with_context(read.error(), path);
  return records;
}

Result<std::vector<Json>> load_json_array(const std::string& path) {
  JsonLimits limits;
  limits.bytes_max = file_bytes_max;
  CHORUS_TRY(const std::string text, read_text_file(path, limits.bytes_max));
  auto parsed = parse_json(text, limits);
  if (!parsed) return with_context(parsed.error(), path);
  Json& array = *parsed;
  if (!array.is_array()) return fail(ErrorCode::invalid_argument, "{}: must be a JSON array of records", path);
  std::vector<Json> records;
  for (Json& record : array) {
    if (!record.is_object())
      return fail(ErrorCode::invalid_argument, "{}: row {}: not a JSON object", path, records.size() + 1);
    records.push_back(std::move(record));
  }
  return records;
}

Result<void> check_primary_key(const std::vector<Json>& records, const LoadParams& params) {
  std::unordered_map<std::string, std::size_t> first_row;  // key as JSON -> row, from 1
  for (std::size_t i = 0; i < records.size(); ++i) {
    const auto key = records[i].find(params.primary_key);
    if (key == records[i].end() || !(key->is_string() || key->is_number_integer())) {
      return fail(ErrorCode::invalid_argument, "{}: row {} has no primary key \"{}\" (a string or an integer)",
                  params.input_data_path, i + 1, params.primary_key);
    }
    const auto [other, is_new] = first_row.emplace(key->dump(), i + 1);
    if (!is_new) {
      return fail(ErrorCode::invalid_argument, "{}: rows {} and {} have the same primary key {} = {}",
                  params.input_data_path, other->second, i + 1, params.primary_key, key->dump());
    }
  }
  return {};
}

}  // namespace

Result<std::vector<Json>> load_records(const LoadParams& params) {
  const std::string extension = std::filesystem::path(params.input_data_path).extension().string();
  std::vector<Json> records;
  if (extension == ".jsonl" || extension == ".ndjson") {
    CHORUS_TRY(records, load_json_lines(params.input_data_path));
  } else if (extension == ".json") {
    CHORUS_TRY(records, load_json_array(params.input_data_path));
  } else if (extension == ".csv") {
    CHORUS_TRY(const std::string text, read_file(params.input_data_path, file_bytes_max));
    if (const auto bad = find_invalid_utf8(text)) {
      return fail(ErrorCode::invalid_argument, "{}: byte {} is not UTF-8", params.input_data_path, *bad);
    }
    CHORUS_TRY(records, parse_csv(text, params.input_data_path));
  } else {
    return fail(ErrorCode::invalid_argument, "{}: unknown kind of data; give a .jsonl, .json or .csv file",
                params.input_data_path);
  }
  CHORUS_TRY_VOID(check_primary_key(records, params));
  return records;
}

}  // namespace chorus
