// Log lines on stderr: "2026-01-31 12:00:00.123 INFO Worker rank 0 is ready". One process-wide level, set once by cli/.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace chorus {

enum class LogLevel { debug, info, warning, error, off };

void set_log_level(LogLevel level);
LogLevel log_level();
// Accepts what VLLM_LOGGING_LEVEL and --log-level accept (debug, info, warning, error, off; any case); else false.
bool parse_log_level(std::string_view text, LogLevel* level);
// One write(2) per line, so that lines of several processes do not mix.
void log_line(LogLevel level, const std::string& message);

template <typename... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (level >= log_level()) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace chorus
