#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <ctime>

namespace chorus {
namespace {

std::atomic<LogLevel> level_now{LogLevel::info};
constexpr std::string_view names[] = {"DEBUG", "INFO", "WARNING", "ERROR", "OFF"};

}  // namespace

void set_log_level(LogLevel level) {
  level_now.store(level, std::memory_order_relaxed);
}

LogLevel log_level() {
  return level_now.load(std::memory_order_relaxed);
}

bool parse_log_level(std::string_view text, LogLevel* level) {
  std::string upper(text);
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  if (upper == "WARN") upper = "WARNING";
  for (int i = 0; i < 5; ++i) {
    if (upper == names[i]) {
      *level = static_cast<LogLevel>(i);
      return true;
    }
  }
  return false;
}

void log_line(LogLevel level, const std::string& message) {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm local{};
  localtime_r(&seconds, &local);
  char stamp[32];
  std::strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &local);
  const std::string line =
      fmt::format("{}.{:03} {} {}\n", stamp, milliseconds, names[static_cast<int>(level)], message);
  // A log line that cannot be written is dropped: there is nowhere to report it.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace chorus
