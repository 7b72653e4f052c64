#include "cli/options.h"

#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <span>
#include <string_view>

#include "base/log.h"
#include "cli/version.h"
#include "config/nearest_name.h"
#include "config/vllm_options.h"
#include "launch/ray_replicas.h"

namespace chorus {
namespace {

constexpr int words_max = 1000;  // behind one option

std::atomic<bool> signal_came{false};

void on_signal(int number) {
  // The second one does not wait. A closed terminal is no second one: its shell and the kernel may both tell of it.
  if (signal_came.exchange(true) && number != SIGHUP) ::_exit(exit_interrupted);
}

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction inherited {};
  ::sigaction(SIGHUP, nullptr, &inherited);
  if (inherited.sa_handler != SIG_IGN) ::sigaction(SIGHUP, &action, nullptr);  // ignored: nohup
  ::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write(), with a message
  ::signal(SIGXFSZ, SIG_IGN);  // and so is a file that outgrows ulimit -f
}

// VLLM_USE_V1 is accepted and means nothing here.
Result<void> read_log_level(const std::string& option) {
  LogLevel level = LogLevel::info;
  for (const char* name : {"VLLM_LOGGING_LEVEL", "CHORUS_LOG_LEVEL"}) {
    const auto value = environment_variable(name);
    if (!value || value->empty() || parse_log_level(*value, &level)) continue;
    log(LogLevel::warning, "{} is \"{}\" and is ignored; known are debug, info, warning, error, off", name, *value);
  }
  if (!option.empty() && !parse_log_level(option, &level)) {
    return fail(ErrorCode::invalid_argument, "--log-level is \"{}\"; accepted: debug, info, warning, error, off",
                option);
  }
  set_log_level(level);
  return {};
}

std::string dashed(const std::string& name) {
  return "--" + name;
}

// CLI11 knows one-letter short options only; vLLM's are longer (-tp, -dpl). They become their long form before parsing.
std::vector<std::string> expand_short_names(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) {  // CLI11 takes them last first
    std::string argument = argv[i];
    if (argument.rfind("--", 0) == 0) {
      const std::size_t end = std::min(argument.find('='), argument.size());
      std::replace(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
    }
    for (const EngineOption& option : engine_options()) {
      if (option.short_name == nullptr) continue;
      const std::string name = option.short_name;
      if (argument == name) argument = dashed(option.name);
      if (argument.rfind(name + "=", 0) == 0) argument = dashed(option.name) + argument.substr(name.size());
    }
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

// What was given as `name` and is none of `known`.
std::string unknown(const char* kind, const std::string& name, const std::vector<std::string>& known) {
  const auto near = nearest_name(name, known);
  return fmt::format("unknown {} {}{}", kind, name, near ? fmt::format(": did you mean {}?", *near) : "");
}

// The words that no option took, first of all one that looks like an option: the rest may have been its values.
std::string about_extras(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front();
  const std::vector<std::string> extras = app.remaining(true);
  for (const std::string& extra : extras) {
    if (extra.size() < 2 || extra[0] != '-') continue;
    std::vector<std::string> known;
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) known.push_back(dashed(name));
    }
    if (command->get_option_no_throw("--dtype") != nullptr) {  // Options::engine() declares of these what is given
      for (const EngineOption& option : options_without_effect()) known.push_back(dashed(option.name));
    }
    return unknown("option", extra.substr(0, extra.find('=')), known);
  }
  return extras.empty() ? "unknown arguments" : fmt::format("unexpected argument {}", extras.front());
}

int usage_error(const CLI::ParseError& error, const CLI::App& app) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
  const bool is_extra = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError);
  const std::string what = is_extra ? about_extras(app) : error.what();
  std::fprintf(stderr, "chorus: %s%s See chorus --help or chorus COMMAND --help.\n", what.c_str(),
               what.ends_with('?') ? "" : ".");
  return exit_usage;
}

// CLI11 misses a command before it sees a word that is none.
std::optional<std::string> unknown_command(int argc, char** argv, const std::vector<Command>& commands) {
  if (argc < 2) return std::nullopt;
  std::vector<std::string> known = {"--help", "-h", "--version"};
  for (const Command& command : commands) known.emplace_back(command.name);
  if (std::find(known.begin(), known.end(), argv[1]) != known.end()) return std::nullopt;
  return fmt::format("{}; known are {}", unknown(argv[1][0] == '-' ? "option" : "command", argv[1], known),
                     fmt::join(known, ", "));
}

}  // namespace

bool interrupted() {
  return signal_came.load(std::memory_order_relaxed);
}

int exit_status_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::not_found:
      return exit_usage;
    case ErrorCode::cancelled:
      return exit_interrupted;
    default:
      return exit_failed;
  }
}

struct Options::Impl {
  CLI::App* app = nullptr;
  const std::vector<std::string>* arguments = nullptr;  // the command line
  EngineConfig* engine_config = nullptr;
  std::vector<GivenOption> engine_given;
  std::vector<std::string> engine_words;
  const std::string* log_level_word = nullptr;
  std::deque<std::string> names;
};

void Options::positional(const char* name, std::string* value, const char* help, bool required) {
  auto* option = impl_.app->add_option(name, *value, help);
  if (required) option->required();
}

void Options::text(const char* name, std::string* value, const char* help) {
  impl_.app->add_option(name, *value, help);
}

void Options::number(const char* name, int* value, const char* help) {
  impl_.app->add_option(name, *value, help)->capture_default_str();
}

void Options::number(const char* name, std::optional<int>* value, const char* help) {
  impl_.app->add_option_function<int>(
      name, [value](int given) { *value = given; }, help);
}

void Options::real(const char* name, std::optional<double>* value, const char* help) {
  impl_.app->add_option_function<double>(
      name, [value](double given) { *value = given; }, help);
}

void Options::real(const char* name, double* value, const char* help) {
  impl_.app->add_option(name, *value, help)->capture_default_str();
}

void Options::words(const char* name, std::vector<std::string>* values, const char* help) {
  impl_.app->add_option(name, *values, help)->expected(1, words_max);
}

void Options::list(const char* name, std::vector<std::string>* values, const char* help) {
  impl_.app
      ->add_option_function<std::string>(
          name, [values](const std::string& value) { values->push_back(value); }, help)
      ->trigger_on_parse()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1);
}

void Options::flag(const char* name, bool* value, const char* help) {
  impl_.app->add_flag(name, *value, help);
}

namespace {

bool is_given(const std::vector<std::string>& arguments, const EngineOption& option) {
  return std::any_of(arguments.begin(), arguments.end(), [&option](std::string_view word) {
    if (!word.starts_with("--")) return false;
    word = word.substr(2, word.find('=') - 2);
    const auto is_name = [&option](std::string_view name) {
      return name == option.name || (option.alias != nullptr && name == option.alias);
    };
    return is_name(word) || (word.starts_with("no-") && is_name(word.substr(3)));
  });
}

}  // namespace

void Options::engine(EngineConfig* config) {
  impl_.engine_config = config;
  auto* given = &impl_.engine_given;
  const auto declare = [given, app = impl_.app](const EngineOption& option, const char* group) {
    const std::string name = option.name;
    const std::string names = dashed(name) + (option.alias == nullptr ? "" : "," + dashed(option.alias));
    CLI::Option* declared = nullptr;
    if (option.value_hint == nullptr) {
      const auto set = [given, name](std::int64_t count) { given->push_back({name, count > 0 ? "true" : "false"}); };
      declared = app->add_flag_function(names + ",!" + dashed("no-" + name), set, option.help);
    } else {
      const auto set = [given, name](const std::string& value) { given->push_back({name, value}); };
      declared = app->add_option_function<std::string>(names, set, option.help)->type_name(option.value_hint);
    }
    declared->group(group)->trigger_on_parse();
  };
  for (const EngineOption& option : engine_options()) {
    // Some options exist for `serve` alone and do nothing elsewhere.
    if (option.accept != nullptr && impl_.app->get_option_no_throw(dashed(option.name)) != nullptr) continue;
    // Known everywhere, so that a command line that gives it elsewhere is told whose it is.
    declare(option, option.of_serve && impl_.app->get_name() != "serve" ? "" : "Engine");
  }
  // They are hundreds and not in --help, and CLI11 compares each with all others: only those that are given.
  for (const EngineOption& option : options_without_effect()) {
    const bool is_own = impl_.app->get_option_no_throw(dashed(option.name)) != nullptr;  // --log-level
    if (!is_own && is_given(*impl_.arguments, option)) declare(option, "");
  }
}

const std::vector<std::string>* Options::engine_words() {
  return &impl_.engine_words;
}

const std::string* Options::log_level_word() {
  return impl_.log_level_word;
}

void Options::sampling(std::vector<GivenOption>* given, bool with_seed) {
  for (const SamplingOption& option : sampling_options()) {
    std::string name = option.name;
    std::replace(name.begin(), name.end(), '_', '-');
    if (name == "seed") {  // also of the engine, which has declared it: one option, both meanings
      if (!with_seed) continue;
      auto* engine_given = &impl_.engine_given;
      auto* engine_option = impl_.app->get_option_no_throw("--seed");
      if (engine_option != nullptr) impl_.app->remove_option(engine_option);
      impl_.app
          ->add_option_function<std::string>(
              "--seed",
              [given, engine_given](const std::string& value) {
                given->push_back({"seed", value});
                engine_given->push_back({"seed", value});
              },
              option.help)
          ->group("Sampling")
          ->trigger_on_parse();
      continue;
    }
    if (option.value_hint == nullptr) {
      const auto set = [given, name](std::int64_t count) { given->push_back({name, count > 0 ? "true" : "false"}); };
      impl_.app->add_flag_function(dashed(name) + ",!" + dashed("no-" + name), set, option.help)
          ->group("Sampling")
          ->trigger_on_parse();
    } else {
      impl_.app
          ->add_option_function<std::string>(
              dashed(name),
              [given, name](const std::string& value) {
                given->push_back({name, value});
              },
              option.help)
          ->type_name(option.value_hint)
          ->group("Sampling")
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
          ->expected(1)
          ->trigger_on_parse();
    }
  }
}

Result<void> apply_given(const std::vector<Options::GivenOption>& given, GenerationOptions* options) {
  for (const Options::GivenOption& option : given) {
    auto applied = apply_sampling_option_text(options, option.name, option.value);
    if (!applied.ok()) return with_context(applied.error(), "--" + option.name);
  }
  return {};
}

namespace {

// An option that only chorus serve shows.
Result<void> refuse_elsewhere(const std::string& name, const std::string& command) {
  CHORUS_TRY(const EngineOptionMatch match, find_engine_option(name));
  if (!match.option->of_serve || command == "serve") return {};
  return fail(ErrorCode::invalid_argument, "--{} is chorus serve's: chorus {} is its own front end; leave it out", name,
              command);
}

Result<std::string> engine_word(const Options::GivenOption& option) {
  CHORUS_TRY(const EngineOptionMatch match, find_engine_option(option.name));
  if (match.option->value_hint != nullptr) return fmt::format("--{}={}", option.name, option.value);
  return fmt::format("--{}{}", option.value == "true" ? "" : "no-", option.name);
}

struct Declared {
  Options::Impl impl;
  std::function<Result<int>()> run;
};

struct CommandLine {
  std::vector<std::string> arguments;  // last first, as CLI11 takes them
  std::string log_level;
  std::deque<Declared> declared;
};

// All commands, for --help; the options of the one that `words` begins with.
void declare_commands(const std::vector<Command>& commands, std::span<char* const> words, CLI::App* app,
                      CommandLine* line) {
  app->require_subcommand(1);
  for (const Command& command : commands) {
    CLI::App* subcommand = app->add_subcommand(command.name, command.help);
    const bool is_meant = !words.empty() && std::string_view(words.front()) == command.name;
    if (command.declare == nullptr) {
      declare_commands(command.subcommands, words.subspan(is_meant ? 1 : words.size()), subcommand, line);
    }
    if (command.declare == nullptr || !is_meant) continue;
    subcommand->add_option("--log-level", line->log_level, "debug, info, warning, error or off");
    Declared& entry = line->declared.emplace_back();
    entry.impl.app = subcommand;
    entry.impl.arguments = &line->arguments;
    entry.impl.log_level_word = &line->log_level;
    Options options(entry.impl);
    entry.run = command.declare(options);
  }
}

}  // namespace

// The only place that reads the environment.
std::optional<std::string> environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

int run_command_line(int argc, char** argv, const std::vector<Command>& commands) {
  if (const auto wrong = unknown_command(argc, argv, commands)) {
    std::fprintf(stderr, "chorus: %s\n", wrong->c_str());
    return exit_usage;
  }
  CLI::App app("Chorus: data-parallel LLM inference, the same request gives the same tokens", "chorus");
  app.set_version_flag("--version", version_text);
  CommandLine line;
  line.arguments = expand_short_names(argc, argv);
  declare_commands(commands, std::span<char* const>(argv, static_cast<std::size_t>(argc)).subspan(argc > 0 ? 1 : 0),
                   &app, &line);
  try {
    app.parse(std::vector<std::string>(line.arguments));
  } catch (const CLI::ParseError& error) {
    return usage_error(error, app);
  }
  install_signal_handlers();
  for (Declared& entry : line.declared) {
    if (!entry.impl.app->parsed()) continue;
    const auto run = [&]() -> Result<int> {
      CHORUS_TRY_VOID(read_log_level(line.log_level));
      for (const Options::GivenOption& option : entry.impl.engine_given) {
        CHORUS_TRY_VOID(refuse_elsewhere(option.name, entry.impl.app->get_name()));
        CHORUS_TRY_VOID(apply_engine_option(entry.impl.engine_config, option.name, option.value));
        CHORUS_TRY(const std::string word, engine_word(option));
        entry.impl.engine_words.push_back(word);
      }
      if (entry.impl.engine_config != nullptr) read_ray_environment(environment_variable, entry.impl.engine_config);
      return entry.run();
    };
    const Result<int> status = run();
    if (status.ok()) return *status;
    std::fprintf(stderr, "chorus: %s\n", status.error().message.c_str());
    return exit_status_of(status.error());
  }
  return exit_usage;
}

}  // namespace chorus
