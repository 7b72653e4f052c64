#include "cli/prompt_rows.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/read_line.h"
#include "frontend/prompt_line.h"

namespace chorus {
namespace {

constexpr std::size_t line_bytes_max = 64 << 20;

}  // namespace

Result<void> read_prompt_lines(std::istream& in, const std::string& name, const ChatFormat& chat,
                               const GenerationOptions& defaults, PromptRows* rows) {
  std::string line;
  for (std::size_t number = 1;; ++number) {
    CHORUS_TRY(const bool there, read_line(in, name, number, line_bytes_max, &line));
    if (!there) return {};
    if (number == 1 && line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);  // byte order mark
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto parsed = parse_prompt_line(line, chat, defaults);
    if (!parsed.ok()) return with_context(parsed.error(), fmt::format("{} line {}", name, number));
    rows->ids.push_back(parsed->id.is_null() ? Json(rows->ids.size()) : parsed->id);
    rows->inputs.push_back(std::move(parsed->input));
  }
}

Result<void> read_prompt_file(const std::string& path, const ChatFormat& chat, const GenerationOptions& defaults,
                              PromptRows* rows) {
  std::ifstream in(path, std::ios::binary);
  if (!in || std::filesystem::is_directory(path)) {
    return fail(ErrorCode::not_found, "no input file {}: give JSON lines with --input", path);
  }
  return read_prompt_lines(in, path, chat, defaults, rows);
}

}  // namespace chorus
