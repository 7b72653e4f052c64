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
    : name_(std::move(name)), file_(std::move(file)), chat_(chat), defaults_(defaults) {}

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

Result<std::optional<PromptLine>> PromptReader::next() {
  while (true) {
    ++line_number_;
    CHORUS_TRY(const bool there, read_line(in(), name_, line_number_, line_bytes_max, &line_));
    if (!there) return std::optional<PromptLine>();
    if (line_.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto parsed = parse_prompt_line(line_, chat_, defaults_);
    if (!parsed.ok()) return with_context(parsed.error(), fmt::format("{} line {}", name_, line_number_));
    return std::optional<PromptLine>(std::move(*parsed));
  }
}

bool PromptReader::is_ready() {
  if (file_ || in().rdbuf()->in_avail() > 0) return true;
  pollfd stdin_item{STDIN_FILENO, POLLIN, 0};
  return ::poll(&stdin_item, 1, 0) != 0;
}

Result<std::optional<std::size_t>> check_prompt_file(const std::string& path, const GenerationOptions& defaults) {
  std::error_code error;
  if (path == "-" || !std::filesystem::is_regular_file(path, error)) return std::optional<std::size_t>();
  CHORUS_TRY(PromptReader reader, PromptReader::open(path, nullptr, defaults));
  for (std::size_t rows = 0;; ++rows) {
    CHORUS_TRY(const auto line, reader.next());
    if (!line) return std::optional<std::size_t>(rows);
    if (rows % rows_between_interrupts == 0 && interrupted()) return fail(ErrorCode::cancelled, "interrupted");
  }
}

}  // namespace chorus
