// chorus chat: a conversation at the terminal, or through a pipe, with a running server, or with one that it starts.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/line_input.h"
#include "cli/server_choice.h"
#include "client/error_text.h"

namespace chorus {
namespace {

constexpr const char* help_text =
    "/system TEXT     what the model is told ahead of the conversation; without TEXT: nothing\n"
    "/set NAME VALUE  a sampling parameter by its name in the API: /set temperature 0.5; without VALUE: the server's\n"
    "/reset           forgets what was said\n"
    "/save FILE       writes the conversation as JSON\n"
    "/help            this list\n"
    "//TEXT           says /TEXT\n"
    "Ctrl-C stops an answer, Ctrl-D ends the chat.\n";

// Of a terminal (ECMA-48, SGR): what the model thinks is faint.
constexpr std::string_view faint = "\x1b[2m", plain = "\x1b[22m";

struct ChatOptions {
  ServerChoice server;
  std::string system;
  std::vector<std::string> settings;
};

std::atomic<bool> answer_stopped{false};

void on_interrupt(int) {
  answer_stopped = true;
}

// At a terminal Ctrl-C is no end; elsewhere the handlers of run_command_line() stay.
void take_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;  // a write of the answer must not fail for it; poll(2) is interrupted all the same
  ::sigaction(SIGINT, &action, nullptr);
}

bool must_stop() {
  return interrupted() || answer_stopped.load(std::memory_order_relaxed);
}

class Chat {
 public:
  Chat(Conversation conversation, LineInput* input) : conversation_(std::move(conversation)), input_(input) {}

  Result<int> run() {
    while (true) {
      Result<std::optional<std::string>> line = input_->next();
      if (!line.ok()) {
        const bool is_new_line = input_->is_terminal() && !interrupted() && line.error().code == ErrorCode::cancelled;
        if (!is_new_line) return line.error();
        answer_stopped = false;
        write_out("\n");
        continue;
      }
      if (!line->has_value()) break;
      const Result<void> done = take(**line);
      if (!done.ok() && (!input_->is_terminal() || interrupted())) return done.error();
      if (!done.ok() && !answer_stopped.exchange(false)) {
        std::fprintf(stderr, "chorus: %s\n", done.error().message.c_str());
      }
      if (std::ferror(stdout) != 0) return fail(ErrorCode::unavailable, "stdout cannot be written");
    }
    if (input_->is_terminal()) write_out("\n");
    return exit_done;
  }

 private:
  static void write_out(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  static std::string style(std::string_view sequence) {
    return environment_variable("TERM").value_or("dumb") == "dumb" ? "" : std::string(sequence);
  }

  Result<void> take(const std::string& line) {
    if (line.empty()) return {};
    if (line.starts_with("//")) return say(line.substr(1));
    return line.starts_with('/') ? command(line) : say(line);
  }

  // A terminal shows the model's thoughts too; a pipe gets the answer alone.
  Result<void> say(const std::string& text) {
    const bool is_terminal = ::isatty(STDOUT_FILENO) == 1;
    bool has_text = false, thinks = false;
    const auto show = [&](const AnswerPiece& piece) {
      if (is_terminal && !piece.reasoning.empty()) {
        if (!std::exchange(thinks, true)) write_out(style(faint));
        write_out(terminal_text(piece.reasoning));
      }
      if (piece.text.empty()) return;
      if (std::exchange(thinks, false)) write_out(style(plain) + "\n");
      has_text = true;
      write_out(is_terminal ? terminal_text(piece.text) : std::string(piece.text));
    };
    const Result<void> said = conversation_.say(text, must_stop, show);
    if (thinks) write_out(style(plain));
    if (said.ok() || has_text) write_out("\n");
    return said;
  }

  Result<void> command(const std::string& line) {
    const std::size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, space);
    const std::size_t begin = line.find_first_not_of(' ', space);
    const std::string rest = begin == line.npos ? "" : line.substr(begin);
    if (name == "/system") return conversation_.set_system(rest), Result<void>();
    if (name == "/reset") return conversation_.reset(), Result<void>();
    if (name == "/save") return conversation_.save(rest);
    if (name == "/help") return std::fputs(help_text, stderr), Result<void>();
    if (name == "/set") {
      const std::size_t end = std::min(rest.find(' '), rest.size());
      return conversation_.parameters().set(rest.substr(0, end), end == rest.size() ? "" : rest.substr(end + 1));
    }
    return fail(ErrorCode::invalid_argument, "unknown command {}; see /help. A text that begins so: /{}",
                terminal_text(name), terminal_text(line));
  }

  Conversation conversation_;
  LineInput* input_;
};

Result<int> chat(const ChatOptions& options) {
  LineInput input(must_stop);
  if (input.is_terminal()) take_interrupts();
  CHORUS_TRY(const ChosenServer server, ChosenServer::open(options.server, must_stop));
  CHORUS_TRY(Conversation conversation, Conversation::open(server.endpoint(), must_stop));
  conversation.set_system(options.system);
  CHORUS_TRY_VOID(conversation.parameters().set_all(options.settings));
  if (input.is_terminal()) std::fputs("/help shows the commands; Ctrl-D ends\n", stderr);
  return Chat(std::move(conversation), &input).run();
}

}  // namespace

std::function<Result<int>()> declare_chat(Options& options) {
  auto values = std::make_shared<ChatOptions>();
  options.text("--system", &values->system, "the system prompt");
  options.list("--set", &values->settings, "NAME=VALUE: a sampling parameter by its name in the API; repeatable");
  values->server.declare(options, "chat");
  return [values] { return chat(*values); };
}

}  // namespace chorus
