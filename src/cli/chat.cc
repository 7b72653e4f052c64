// chorus chat: a conversation at the terminal, or through a pipe, with a running server, or with one that it starts.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/line_input.h"
#include "cli/read_line.h"
#include "client/chat_stream.h"
#include "client/own_server.h"

namespace chorus {
namespace {

constexpr std::size_t key_bytes_max = 4096;

constexpr const char* help_text =
    "/system TEXT     what the model is told ahead of the conversation; without TEXT: nothing\n"
    "/set NAME VALUE  a sampling parameter by its name in the API: /set temperature 0.5; without VALUE: the server's\n"
    "/reset           forgets what was said\n"
    "/save FILE       writes the conversation as JSON\n"
    "/help            this list\n"
    "//TEXT           says /TEXT\n"
    "Ctrl-C stops an answer, Ctrl-D ends the chat.\n";

struct ChatOptions {
  std::string target = "http://127.0.0.1:8000";
  std::string api_key_file;
  std::string system;
  std::vector<std::string> settings;
  EngineConfig engine;  // checks the engine options; the server reads their words
  const std::vector<std::string>* engine_words = nullptr;
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

Result<std::string> read_key(const std::string& path) {
  std::string key = environment_variable("CHORUS_API_KEY").value_or("");
  if (!path.empty()) {
    std::ifstream file(path);
    if (!file) return fail(ErrorCode::not_found, "--api-key-file {}: cannot be read", path);
    CHORUS_TRY(const bool found, read_line(file, path, 1, key_bytes_max, &key));
    if (!found || key.empty()) return fail(ErrorCode::invalid_argument, "--api-key-file {}: no key in line 1", path);
  }
  for (const char c : key) {
    if (c <= ' ' || c > '~') return fail(ErrorCode::invalid_argument, "the API key holds a character that none may");
  }
  return key;
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

  Result<void> take(const std::string& line) {
    if (line.empty()) return {};
    if (line.starts_with("//")) return say(line.substr(1));
    return line.starts_with('/') ? command(line) : say(line);
  }

  Result<void> say(const std::string& text) {
    const bool spells = ::isatty(STDOUT_FILENO) == 1;
    bool has_text = false;
    const Result<void> said = conversation_.say(text, must_stop, [spells, &has_text](std::string_view piece) {
      has_text = true;
      write_out(spells ? terminal_text(piece) : std::string(piece));
    });
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
      return conversation_.set(rest.substr(0, end), end == rest.size() ? "" : rest.substr(end + 1));
    }
    return fail(ErrorCode::invalid_argument, "unknown command {}; see /help. A text that begins so: /{}",
                terminal_text(name), terminal_text(line));
  }

  Conversation conversation_;
  LineInput* input_;
};

Result<Endpoint> running_server(const ChatOptions& options) {
  CHORUS_TRY(Endpoint endpoint, parse_url(options.target));
  if (!options.engine_words->empty()) {
    return fail(ErrorCode::invalid_argument, "{} is an engine's option, and {} has engines: give it to chorus serve",
                options.engine_words->front(), options.target);
  }
  CHORUS_TRY(endpoint.key, read_key(options.api_key_file));
  return endpoint;
}

Result<OwnServer> own_server(const ChatOptions& options) {
  std::vector<std::string> words = *options.engine_words;
  words.insert(words.end(), {"--", options.target});
  std::fprintf(stderr, "chorus: loading %s\n", options.target.c_str());
  return OwnServer::start(words, environment_variable("CHORUS_LOG_LEVEL").value_or("warning"), must_stop);
}

Result<int> chat(const ChatOptions& options) {
  LineInput input(must_stop);
  if (input.is_terminal()) take_interrupts();
  std::optional<OwnServer> server;
  Endpoint endpoint;
  if (is_url(options.target)) {
    CHORUS_TRY(endpoint, running_server(options));
  } else {
    CHORUS_TRY(OwnServer started, own_server(options));
    server.emplace(std::move(started));
    endpoint = server->endpoint();
  }
  CHORUS_TRY(Conversation conversation, Conversation::open(std::move(endpoint), must_stop));
  conversation.set_system(options.system);
  for (const std::string& setting : options.settings) {
    const std::size_t equals = setting.find('=');
    if (equals == setting.npos) return fail(ErrorCode::invalid_argument, "--set {}: give NAME=VALUE", setting);
    CHORUS_TRY_VOID(conversation.set(setting.substr(0, equals), setting.substr(equals + 1)));
  }
  if (input.is_terminal()) std::fputs("/help shows the commands; Ctrl-D ends\n", stderr);
  return Chat(std::move(conversation), &input).run();
}

}  // namespace

std::function<Result<int>()> declare_chat(Options& options) {
  auto values = std::make_shared<ChatOptions>();
  options.positional("SERVER", &values->target,
                     "http://HOST:PORT or unix:PATH of a running server (http://127.0.0.1:8000), or a MODEL: then chat "
                     "starts a server with the engine options, and ends it with the chat",
                     false);
  options.text("--api-key-file", &values->api_key_file,
               "the running server's API key, in line 1; it may also be in the environment, as CHORUS_API_KEY");
  options.text("--system", &values->system, "the system prompt");
  options.list("--set", &values->settings, "NAME=VALUE: a sampling parameter by its name in the API; repeatable");
  options.engine(&values->engine);
  values->engine_words = options.engine_words();
  return [values] { return chat(*values); };
}

}  // namespace chorus
