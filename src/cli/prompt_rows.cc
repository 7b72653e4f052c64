#include "cli/prompt_rows.h"

#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/options.h"
#include "cli/read_line.h"

namespace chorus {
namespace {

constexpr std::size_t line_bytes_max = 64 << 20;
constexpr std::size_t rows_between_interrupts = 1024;

}  // namespace

PromptReader::PromptReader(std::string name, std::unique_ptr<std::ifstream> file, const ChatFormat* chat,
                           const GenerationOptions& defaults)
    : name_(std::move(name)), file_(std::move(file)), parser_(chat, defaults) {}

Result<PromptReader> PromptReader::open(const std::string& path, const ChatFormat* chat,
                                        const GenerationOptions& defaults) {
  if (path == "-") {
    std::ios::sync_with_stdio(false);  // std::cin reads in blocks; nothing else reads stdin
    return PromptReader("stdin", nullptr, chat, defaults);
  }
  auto file = std::make_unique<std::ifstream>(path, std::ios::binary);
  if (!*file || std::filesystem::is_directory(path)) {
    return fail(ErrorCode::not_found, "no input file {}: give JSON lines with --input", path);
  }
  return PromptReader(path, std::move(file), chat, defaults);
}

std::istream& PromptReader::in() {
  return file_ ? static_cast<std::istream&>(*file_) : std::cin;
}

Result<bool> PromptReader::read(InputLine* line) {
  while (true) {
    line->number = ++lines_read_;
    CHORUS_TRY(const bool there, read_line(in(), name_, line->number, line_bytes_max, &line->text));
    if (!there || line->text.find_first_not_of(" \t\r") != std::string::npos) return there;
  }
}

Error PromptReader::at_line(const Error& error, const InputLine& line) const {
  return with_context(error, fmt::format("{} line {}", name_, line.number));
}

Result<PromptLine> PromptReader::parse(const InputLine& line) {
  auto parsed = parser_.parse(line.text);
  if (!parsed.ok()) return at_line(parsed.error(), line);
  return parsed;
}

Result<void> PromptReader::check(const InputLine& line) {
  const auto checked = parser_.check(line.text);
  return checked.ok() ? checked : at_line(checked.error(), line);
}

Result<std::optional<PromptLine>> PromptReader::next() {
  CHORUS_TRY(const bool there, read(&line_));
  if (!there) return std::optional<PromptLine>();
  CHORUS_TRY(PromptLine row, parse(line_));
  return std::optional<PromptLine>(std::move(row));
}

bool PromptReader::is_ready(int timeout_ms) {
  if (file_ || in().rdbuf()->in_avail() > 0) return true;
  pollfd stdin_item{STDIN_FILENO, POLLIN, 0};
  return ::poll(&stdin_item, 1, timeout_ms) != 0;
}

Result<std::optional<std::size_t>> check_prompt_file(const std::string& path, const GenerationOptions& defaults) {
  std::error_code error;
  if (path == "-" || !std::filesystem::is_regular_file(path, error)) return std::optional<std::size_t>();
  CHORUS_TRY(PromptReader reader, PromptReader::open(path, nullptr, defaults));
  InputLine line;
  for (std::size_t rows = 0;; ++rows) {
    CHORUS_TRY(const bool there, reader.read(&line));
    if (!there) return std::optional<std::size_t>(rows);
    CHORUS_TRY_VOID(reader.check(line));
    if (rows % rows_between_interrupts == 0 && interrupted()) return fail(ErrorCode::cancelled, "interrupted");
  }
}

}  // namespace chorus
