// chorus tokenize MODEL: text to ids, ids to text, chats to prompts. MODEL may hold tokenizer files alone.
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/read_line.h"
#include "frontend/chat_format.h"
#include "gguf/gguf_file.h"
#include "json/file_write.h"
#include "tokenizer/tokenizer.h"

namespace chorus {
namespace {

constexpr std::size_t stdin_bytes_max = std::size_t{1} << 30;
constexpr std::size_t line_bytes_max = std::size_t{256} << 20;

struct TokenizeOptions {
  std::string model;
  bool decode = false;
  bool jsonl = false;
  bool no_add_special_tokens = false;
  bool skip_special_tokens = false;
  std::string render_chat;
};

Result<void> write_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return {};
  return file_error("write", "stdout", errno);
}

Result<std::string> read_stdin() {
  std::string text(std::size_t{1} << 16, '\0');
  std::size_t size = 0;
  while (const std::size_t got = std::fread(text.data() + size, 1, text.size() - size, stdin)) {
    size += got;
    if (size > stdin_bytes_max) {
      return fail(ErrorCode::invalid_argument, "stdin: longer than {} bytes: give it in parts, with --jsonl",
                  stdin_bytes_max);
    }
    if (size == text.size()) text.resize(size * 2);
  }
  if (std::ferror(stdin) != 0) return fail(ErrorCode::invalid_argument, "stdin: cannot read");
  text.resize(size);
  return text;
}

Result<std::vector<std::int32_t>> ids_of(const Json& list) {
  const Error wrong = fail(ErrorCode::invalid_argument, "ids: give a list of whole numbers from 0 to {}", INT32_MAX);
  if (!list.is_array()) return wrong;
  std::vector<std::int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() > INT32_MAX) return wrong;
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

// Ids as `tokenize` prints them, or as a JSON list.
Result<std::vector<std::int32_t>> read_ids(std::string text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return std::vector<std::int32_t>{};
  if (text[first] != '[') {
    std::string list;
    for (std::size_t begin = first; begin != std::string::npos;) {
      const std::size_t end = std::min(text.find_first_of(" \t\r\n", begin), text.size());
      list += list.empty() ? '[' : ',';
      list.append(text, begin, end - begin);
      begin = text.find_first_not_of(" \t\r\n", end);
    }
    text = list + "]";
  }
  auto list = parse_json(text);
  if (!list.ok())
    return fail(ErrorCode::invalid_argument, "stdin: give ids separated by white space, or a JSON list of them");
  return ids_of(*list);
}

Result<int> encode_text(const TokenizeOptions& options, const Tokenizer& tokenizer) {
  CHORUS_TRY(const std::string text, read_stdin());
  CHORUS_TRY(const auto ids, tokenizer.encode(text, !options.no_add_special_tokens));
  CHORUS_TRY_VOID(write_out(fmt::format("{}\n", fmt::join(ids, " "))));
  return exit_done;
}

Result<int> decode_ids(const TokenizeOptions& options, const Tokenizer& tokenizer) {
  CHORUS_TRY(std::string text, read_stdin());
  CHORUS_TRY(const auto ids, read_ids(std::move(text)));
  CHORUS_TRY(const std::string decoded, tokenizer.decode(ids, options.skip_special_tokens));
  CHORUS_TRY_VOID(write_out(decoded));
  return exit_done;
}

// The line {"text": ..}, {"ids": ..} or {"error": ..} that answers one line of --jsonl.
Result<void> answer_line(const TokenizeOptions& options, const Tokenizer& tokenizer, const Json& line,
                         JsonWriter& writer) {
  const bool has_text = line.is_object() && line.contains("text"), has_ids = line.is_object() && line.contains("ids");
  if (has_text == has_ids) return fail(ErrorCode::invalid_argument, "give {{\"text\": ..}} or {{\"ids\": [..]}}");
  if (has_ids) {
    CHORUS_TRY(const auto ids, ids_of(line["ids"]));
    CHORUS_TRY(const std::string text, tokenizer.decode(ids, options.skip_special_tokens));
    writer.key("text").value(text);
    return {};
  }
  if (!line["text"].is_string()) return fail(ErrorCode::invalid_argument, "text: not a string");
  CHORUS_TRY(const auto ids,
             tokenizer.encode(line["text"].get_ref<const std::string&>(), !options.no_add_special_tokens));
  writer.key("ids").begin_array();
  for (const std::int32_t id : ids) writer.value(id);
  writer.end_array();
  return {};
}

// One line out for each line in. `answer` writes one key and its value, or fails, which answers that line alone.
using Answer = std::function<Result<void>(const Json& line, JsonWriter& writer)>;
Result<int> answer_lines(std::istream& in, const std::string& name, const Answer& answer) {
  std::size_t failed = 0;
  std::string line, out;
  for (std::size_t number = 1; !interrupted(); ++number) {
    CHORUS_TRY(const bool there, read_line(in, name, number, line_bytes_max, &line));
    if (!there) break;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    out.clear();
    JsonWriter writer(&out);
    writer.begin_object();
    const auto answered = [&]() -> Result<void> {
      CHORUS_TRY(const Json value, parse_json(line));
      return answer(value, writer);
    }();
    if (!answered.ok()) {
      ++failed;
      writer.key("error").value(answered.error().message);
    }
    writer.end_object();
    CHORUS_TRY_VOID(write_out(out + "\n"));
    if (in.rdbuf()->in_avail() <= 0) std::fflush(stdout);  // whoever feeds us line by line sees each answer
  }
  if (interrupted()) return fail(ErrorCode::cancelled, "interrupted");
  if (failed > 0) log(LogLevel::error, "{}: {} lines failed; each answer's \"error\" says why", name, failed);
  return failed > 0 ? exit_rows_failed : exit_done;
}

Result<int> render_chats(const TokenizeOptions& options) {
  CHORUS_TRY(const ChatFormat chat, ChatFormat::load(options.model));
  const Answer render = [&chat](const Json& line, JsonWriter& writer) -> Result<void> {
    CHORUS_TRY(const std::string text, chat.render(line));
    writer.key("text").value(text);
    return {};
  };
  if (options.render_chat == "-") return answer_lines(std::cin, "stdin", render);
  std::ifstream in(options.render_chat, std::ios::binary);
  if (!in || std::filesystem::is_directory(options.render_chat)) {
    return fail(ErrorCode::not_found,
                "no file {}: give JSON lines {{\"messages\": [..]}} with --render-chat, or - for stdin",
                options.render_chat);
  }
  return answer_lines(in, options.render_chat, render);
}

Result<int> convert(const TokenizeOptions& options) {
  CHORUS_TRY(const auto tokenizer, load_tokenizer(options.model));
  if (options.decode) return decode_ids(options, *tokenizer);
  if (!options.jsonl) return encode_text(options, *tokenizer);
  return answer_lines(std::cin, "stdin", [&](const Json& line, JsonWriter& writer) {
    return answer_line(options, *tokenizer, line, writer);
  });
}

Result<int> tokenize(const TokenizeOptions& options) {
  const int modes = (options.decode ? 1 : 0) + (options.jsonl ? 1 : 0) + (options.render_chat.empty() ? 0 : 1);
  if (modes > 1) return fail(ErrorCode::invalid_argument, "--decode, --jsonl and --render-chat: give one of them");
  if (!is_gguf(options.model) && !std::filesystem::is_directory(options.model)) {
    return fail(ErrorCode::not_found, "{}: no such directory: give one that holds tokenizer.json, or a .gguf file",
                options.model);
  }
  std::ios::sync_with_stdio(false);  // std::cin reads in blocks; one of stdin and std::cin is used, never both
  CHORUS_TRY(const int status, options.render_chat.empty() ? convert(options) : render_chats(options));
  if (std::fflush(stdout) != 0) return file_error("write", "stdout", errno);
  return status;
}

}  // namespace

std::function<Result<int>()> declare_tokenize(Options& options) {
  auto values = std::make_shared<TokenizeOptions>();
  options.positional(
      "MODEL", &values->model,
      "directory with tokenizer.json, or a .gguf file; for --render-chat tokenizer_config.json or chat_template.jinja");
  options.flag("--decode", &values->decode,
               "stdin: ids separated by white space, or a JSON list; stdout: exactly their text, no newline added");
  options.flag(
      "--jsonl", &values->jsonl,
      "stdin: lines {\"text\": ..} or {\"ids\": [..]}; stdout: {\"ids\": [..]}, {\"text\": ..} or {\"error\": ..}");
  options.flag("--no-add-special-tokens", &values->no_add_special_tokens, "encode without BOS, EOS and the like");
  options.flag("--skip-special-tokens", &values->skip_special_tokens, "decode without the text of special tokens");
  options.text("--render-chat", &values->render_chat,
               "JSON lines {\"messages\", \"tools\"?, \"documents\"?, \"add_generation_prompt\"?, \"chat_template\"?, "
               "\"bos_token\"?, "
               "\"eos_token\"?, \"now\"?, ..} (- is stdin); stdout: {\"text\": ..} or {\"error\": ..}");
  return [values] { return tokenize(*values); };
}

}  // namespace chorus
