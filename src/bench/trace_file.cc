#include "bench/trace_file.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/text_values.h"
#include "bench/arrivals.h"
#include "bench/workload.h"
#include "json/file.h"
#include "json/json.h"

namespace chorus {
namespace {

constexpr std::string_view azure_header = "TIMESTAMP,ContextTokens,GeneratedTokens";

bool is_enough(const std::vector<TraceEntry>& trace, const DatasetOptions& options) {
  return options.num_prompts > 0 && trace.size() >= static_cast<std::size_t>(options.num_prompts);
}

// "2023-11-16 18:15:46.6805900": seconds since 1970.
std::optional<double> time_of(std::string_view text) {
  const auto number_at = [text](std::size_t at, std::size_t count) -> std::optional<int> {
    return at + count <= text.size() ? number_in<int>(text.substr(at, count)) : std::nullopt;
  };
  const auto year = number_at(0, 4), month = number_at(5, 2), day = number_at(8, 2), hour = number_at(11, 2),
             minute = number_at(14, 2);
  const auto second = text.size() > 17 ? number_in<double>(text.substr(17)) : std::nullopt;
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  const std::chrono::year_month_day date(std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  if (!date.ok()) return std::nullopt;
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return static_cast<double>(days) * 86400 + *hour * 3600 + *minute * 60 + *second;
}

Result<std::vector<TraceEntry>> read_azure(std::string_view text, const DatasetOptions& options) {
  std::vector<TraceEntry> trace;
  std::optional<double> begin;
  next_part(&text, '\n');
  for (std::size_t line = 2; !text.empty() && !is_enough(trace, options); ++line) {
    std::string_view row = next_part(&text, '\n');
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.empty()) continue;
    const auto time = time_of(next_part(&row, ','));
    const auto input = number_in<int>(next_part(&row, ','));
    const auto output = number_in<int>(row);
    if (!time || !input || !output || std::min(*input, *output) < 1 || std::max(*input, *output) > length_max) {
      return fail(ErrorCode::invalid_argument, "{} line {}: not a time and two whole numbers from 1 to {}",
                  options.path, line, length_max);
    }
    if (!begin) begin = *time;
    if (!(std::abs(*time - *begin) <= arrival_max_s)) {
      return fail(ErrorCode::invalid_argument, "{} line {}: more than a year from the first line's time", options.path,
                  line);
    }
    trace.push_back({*time - *begin, *input, *output, {}});
  }
  // The first row need not be the first request.
  const auto first = std::ranges::min_element(trace, {}, &TraceEntry::at_s);
  const double first_s = first == trace.end() ? 0 : first->at_s;
  for (TraceEntry& entry : trace) entry.at_s -= first_s;
  return trace;
}

Result<int> length_of(const Json& row, const std::string& name, const char* option) {
  if (const auto length = length_in(row, name)) return *length;
  return fail(ErrorCode::invalid_argument, "no whole number \"{}\" from 1 to {}: name the field with {}", name,
              length_max, option);
}

Result<TraceEntry> entry_of(const Json& row, const DatasetOptions& options) {
  TraceEntry entry;
  if (!row.is_object()) return fail(ErrorCode::invalid_argument, "not a JSON object");
  const auto time = row.find(options.trace_timestamp);
  if (time == row.end() || !time->is_number() || *time < 0) {
    return fail(ErrorCode::invalid_argument,
                "no number \"{}\" from 0: name the field with --timed-trace-label-timestamp", options.trace_timestamp);
  }
  entry.at_s = time->get<double>() * options.trace_seconds;
  if (entry.at_s > arrival_max_s) {
    return fail(ErrorCode::invalid_argument,
                "\"{}\" is {} s, more than a year: count it from the trace's beginning, or give "
                "--timed-trace-sec-multiplier (0.001 for milliseconds)",
                options.trace_timestamp, entry.at_s);
  }
  CHORUS_TRY(entry.input_len, length_of(row, options.trace_input, "--timed-trace-label-input-length"));
  CHORUS_TRY(entry.output_len, length_of(row, options.trace_output, "--timed-trace-label-output-length"));
  const auto hashes = row.find(options.trace_hashes);
  if (hashes == row.end()) return entry;
  for (const Json& hash : hashes->is_array() ? *hashes : Json::array()) {
    if (!hash.is_number_integer()) {
      return fail(ErrorCode::invalid_argument, "\"{}\" holds what is no whole number", options.trace_hashes);
    }
    entry.hashes.push_back(hash.get<std::uint64_t>());
  }
  const std::size_t known = entry.hashes.size() * static_cast<std::size_t>(options.trace_chunk);
  if (!entry.hashes.empty() && known < static_cast<std::size_t>(entry.input_len)) {
    return fail(ErrorCode::invalid_argument,
                "{} hashes of {} tokens are fewer than the prompt's {}: give --timed-trace-chunk-hash-size (512 for "
                "Mooncake's traces)",
                entry.hashes.size(), options.trace_chunk, entry.input_len);
  }
  return entry;
}

Result<std::vector<TraceEntry>> read_json_lines(std::string_view text, const DatasetOptions& options) {
  std::vector<TraceEntry> trace;
  const auto take = [&](std::size_t, Json&& row) -> Result<void> {
    if (is_enough(trace, options)) return {};
    CHORUS_TRY(TraceEntry entry, entry_of(row, options));
    trace.push_back(std::move(entry));
    return {};
  };
  const Result<void> read = for_each_json_line(text, take);
  if (!read.ok()) return with_context(read.error(), options.path);
  return trace;
}

}  // namespace

Result<std::vector<TraceEntry>> read_trace_file(const DatasetOptions& options) {
  CHORUS_TRY_VOID(check_between("--timed-trace-chunk-hash-size", options.trace_chunk, 1, length_max));
  if (!std::isfinite(options.trace_seconds) || options.trace_seconds <= 0) {
    return fail(ErrorCode::invalid_argument, "--timed-trace-sec-multiplier is {}: give a finite number above 0",
                options.trace_seconds);
  }
  CHORUS_TRY(const std::string text, read_text_file(options.path, dataset_bytes_max));
  CHORUS_TRY(std::vector<TraceEntry> trace,
             text.starts_with(azure_header) ? read_azure(text, options) : read_json_lines(text, options));
  if (trace.empty()) return fail(ErrorCode::invalid_argument, "{}: the trace has no request", options.path);
  std::ranges::stable_sort(trace, {}, &TraceEntry::at_s);
  return trace;
}

}  // namespace chorus
