// chorus complete: one prompt in, its continuation out as it comes, by a running server or by one that it starts.
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/request_parameters.h"
#include "cli/server_choice.h"
#include "client/answer_stream.h"
#include "client/error_text.h"
#include "client/model_name.h"
#include "json/json.h"

namespace chorus {
namespace {

constexpr std::size_t prompt_bytes_max = 16u << 20;
constexpr int look_ms = 100;  // how often a prompt that is being typed is asked whether to stop

struct CompleteOptions {
  ServerChoice server;
  std::vector<std::string> prompts;  // at most one; a list, so that an empty one counts
  std::vector<std::string> settings;
};

// All of stdin, but for one newline at its end, which `echo` and an editor add.
Result<std::string> read_prompt() {
  if (::isatty(STDIN_FILENO) == 1) std::fputs("the prompt; Ctrl-D ends it:\n", stderr);
  std::string prompt;
  std::array<char, 65536> piece;
  while (true) {
    if (interrupted()) return fail(ErrorCode::cancelled, "interrupted");
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, look_ms) <= 0) continue;
    const ssize_t count = ::read(STDIN_FILENO, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(ErrorCode::invalid_argument, "stdin cannot be read: {}", std::strerror(errno));
    if (count == 0) break;
    prompt.append(piece.data(), static_cast<std::size_t>(count));
    if (prompt.size() > prompt_bytes_max) {
      return fail(ErrorCode::invalid_argument, "the prompt on stdin is longer than {} bytes", prompt_bytes_max);
    }
  }
  if (prompt.ends_with('\n')) prompt.pop_back();
  return prompt;
}

// Writes the text as it comes, and a newline behind it.
Result<void> stream_text(const Endpoint& endpoint, const Json& request) {
  const bool is_terminal = ::isatty(STDOUT_FILENO) == 1;
  bool has_text = false;
  AnswerStream stream([&](const AnswerPiece& piece) {
    if (piece.text.empty()) return;
    has_text = true;
    const std::string text = is_terminal ? terminal_text(piece.text) : std::string(piece.text);
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  const auto on_body = [&stream](std::string_view bytes) -> Result<void> {
    CHORUS_TRY_VOID(stream.feed(bytes));
    if (std::ferror(stdout) == 0) return {};
    return fail(ErrorCode::unavailable, "stdout cannot be written");
  };
  const std::string body = request.dump(-1, ' ', false, Json::error_handler_t::replace);
  Result<void> result = call(endpoint, {"POST", "/v1/completions", body, interrupted, on_body});
  if (result.ok()) result = stream.finish();
  if (result.ok() || has_text) std::fputc('\n', stdout);
  if (std::fflush(stdout) != 0 && result.ok()) return fail(ErrorCode::unavailable, "stdout cannot be written");
  return result;
}

Result<int> complete(const CompleteOptions& options) {
  if (options.prompts.size() > 1) {
    return fail(ErrorCode::invalid_argument, "--prompt is given {} times: give one, or many to chorus generate",
                options.prompts.size());
  }
  RequestParameters parameters;
  CHORUS_TRY_VOID(parameters.set_all(options.settings));
  std::string prompt;
  if (options.prompts.empty()) {
    CHORUS_TRY(prompt, read_prompt());
  } else {
    prompt = options.prompts.front();
  }
  CHORUS_TRY(const ChosenServer server, ChosenServer::open(options.server, interrupted));
  Json request = parameters.values();
  CHORUS_TRY(request["model"], first_model(server.endpoint(), interrupted));
  request["prompt"] = std::move(prompt);
  request["stream"] = true;
  CHORUS_TRY_VOID(stream_text(server.endpoint(), request));
  return exit_done;
}

}  // namespace

std::function<Result<int>()> declare_complete(Options& options) {
  auto values = std::make_shared<CompleteOptions>();
  options.list("--prompt", &values->prompts, "the text to go on with; without it all of stdin, less a last newline");
  options.list("--set", &values->settings,
               "NAME=VALUE: a sampling parameter by its name in the API, as in max_tokens=100; repeatable");
  values->server.declare(options, "complete");
  return [values] { return complete(*values); };
}

}  // namespace chorus
