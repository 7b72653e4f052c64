#include "cli/line_input.h"

#include <histedit.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "json/utf8.h"

namespace chorus {
namespace {

constexpr int look_ms = 100;
constexpr int history_lines = 500;

char* prompt(EditLine*) {
  static char text[] = "> ";
  return text;
}

}  // namespace

struct LineInput::State {
  std::function<bool()> stop;
  std::string pending;  // read and not yet given out
  EditLine* editor = nullptr;
  History* lines = nullptr;
  bool stopped = false;

  // More input into `pending`. False: it has ended, or `stopped`, or errno.
  bool read_more() {
    while (true) {
      stopped = stop();
      if (stopped) return false;
      pollfd item{STDIN_FILENO, POLLIN, 0};
      if (::poll(&item, 1, look_ms) <= 0) continue;
      std::array<char, 4096> piece;
      const ssize_t count = ::read(STDIN_FILENO, piece.data(), piece.size());
      if (count < 0 && errno == EINTR) continue;
      if (count == 0) errno = 0;
      if (count <= 0) return false;
      pending.append(piece.data(), static_cast<std::size_t>(count));
      return true;
    }
  }

  // libedit's: one character, 1; 0 at the end of input, -1 when it is to give up the line.
  static int read_character(EditLine* editor, wchar_t* character) {
    State* state = nullptr;
    el_get(editor, EL_CLIENTDATA, &state);
    Utf8Step step;
    while (state->pending.empty() || (step = utf8_step(state->pending, 0)).cut_off) {
      if (!state->read_more()) return state->stopped ? -1 : 0;
    }
    // A Ctrl-D that was typed ahead, before libedit had the terminal to itself, has become a zero there.
    constexpr wchar_t end_of_input = 4;
    *character = step.code_point == 0 ? end_of_input : static_cast<wchar_t>(step.code_point);
    state->pending.erase(0, step.size);
    return 1;
  }

  void open_editor() {
    std::setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
    editor = el_init("chorus", stdin, stdout, stderr);
    lines = history_init();
    HistEvent event;
    if (lines != nullptr) history(lines, &event, H_SETSIZE, history_lines);
    if (editor == nullptr) return;
    el_set(editor, EL_CLIENTDATA, this);
    el_set(editor, EL_PROMPT, prompt);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_GETCFN, &State::read_character);
    if (lines != nullptr) el_set(editor, EL_HIST, history, lines);
  }

  Result<std::optional<std::string>> edited_line() {
    int count = 0;
    stopped = false;
    const char* text = el_gets(editor, &count);
    if (stopped) return fail(ErrorCode::cancelled, "interrupted");
    if (text == nullptr || count <= 0) return std::optional<std::string>();
    std::string line(text, static_cast<std::size_t>(count));
    if (line.ends_with('\n')) line.pop_back();
    HistEvent event;
    if (lines != nullptr && !line.empty()) history(lines, &event, H_ENTER, line.c_str());
    return std::optional<std::string>(std::move(line));
  }

  Result<std::optional<std::string>> plain_line() {
    std::size_t end = pending.find('\n');
    while (end == pending.npos) {
      const std::size_t seen = pending.size();
      if (seen > line_bytes_max) {
        return fail(ErrorCode::invalid_argument, "a line of the input is longer than {} bytes", line_bytes_max);
      }
      if (!read_more()) {
        if (stopped) return fail(ErrorCode::cancelled, "interrupted");
        if (errno != 0) return fail(ErrorCode::invalid_argument, "stdin cannot be read: {}", std::strerror(errno));
        if (pending.empty()) return std::optional<std::string>();
        return std::optional<std::string>(std::exchange(pending, {}));
      }
      end = pending.find('\n', seen);
    }
    std::string line = pending.substr(0, end);
    pending.erase(0, end + 1);
    return std::optional<std::string>(std::move(line));
  }
};

LineInput::LineInput(std::function<bool()> stop) : state_(std::make_unique<State>()) {
  state_->stop = std::move(stop);
  if (::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1) state_->open_editor();
}

LineInput::~LineInput() {
  if (state_->editor != nullptr) el_end(state_->editor);
  if (state_->lines != nullptr) history_end(state_->lines);
}

bool LineInput::is_terminal() const {
  return state_->editor != nullptr;
}

Result<std::optional<std::string>> LineInput::next() {
  return state_->editor == nullptr ? state_->plain_line() : state_->edited_line();
}

}  // namespace chorus
