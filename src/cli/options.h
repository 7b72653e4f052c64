// The command line: a thin face over CLI11, which only options.cc includes. Every subcommand is a row of commands() in
// main.cc and its own file; it declares its options in add() and runs in run().
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "frontend/sampling_options.h"

namespace chorus {

// Exit statuses of interface.md.
enum ExitCode : int { exit_done = 0, exit_failed = 1, exit_usage = 2, exit_rows_failed = 3, exit_interrupted = 130 };
int exit_status_of(const Error& error);

// Collects what a command accepts. Values keep their defaults when an option is not given.
class Options {
 public:
  struct Impl;
  explicit Options(Impl& impl) : impl_(impl) {}
  void positional(const char* name, std::string* value, const char* help, bool required = true);
  void text(const char* name, std::string* value, const char* help);
  void number(const char* name, int* value, const char* help);
  void number(const char* name, std::optional<int>* value, const char* help);
  void real(const char* name, double* value, const char* help);  // "inf" too
  void real(const char* name, std::optional<double>* value, const char* help);
  void list(const char* name, std::vector<std::string>* values, const char* help);  // repeatable, in order
  // One or several values behind one name, as argparse's nargs="+" has them.
  void words(const char* name, std::vector<std::string>* values, const char* help);
  void flag(const char* name, bool* value, const char* help);
  // The engine options of interface.md. They are applied to *config when the command line has been read.
  void engine(EngineConfig* config);
  // The engine options that were given, as words for another `chorus`. To be read when the command runs.
  const std::vector<std::string>* engine_words();
  // --log-level as it was given; "": it was not. To be read when the command runs.
  const std::string* log_level_word();
  // The sampling options; kept as given, to be applied over the model's defaults: see apply_given().
  struct GivenOption {
    std::string name, value;
  };
  // `with_seed` false: --seed stays an engine option alone.
  void sampling(std::vector<GivenOption>* given, bool with_seed = true);

 private:
  Impl& impl_;
};

Result<void> apply_given(const std::vector<Options::GivenOption>& given, GenerationOptions* options);

struct Command {
  const char* name;
  const char* help;
  // Declares options and returns what runs after they were read: its value is the exit status. nullptr: one of
  // `subcommands` is required.
  std::function<Result<int>()> (*declare)(Options& options);
  std::vector<Command> subcommands = {};
};

// Reads argv, finds the command, runs it. Prints errors as one line on stderr.
int run_command_line(int argc, char** argv, const std::vector<Command>& commands);

std::optional<std::string> environment_variable(const std::string& name);

// True once SIGINT, SIGTERM or SIGHUP has come (handlers are installed by run_command_line).
bool interrupted();

}  // namespace chorus
