// Reading and writing the fields of EngineConfig by the rows of its table (config/engine_config.h).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

#include "base/ascii.h"
#include "base/log.h"
#include "config/engine_config.h"
#include "config/vllm_options.h"

namespace chorus {
namespace {

Error not_accepted(const std::string& value, const std::string& accepted) {
  return fail(ErrorCode::invalid_argument, "\"{}\"; accepted: {}", value.substr(0, 100), accepted);
}

template <typename Integer>
Result<void> read_integer(Integer* field, const std::string& value) {
  const char* begin = value.data() + (value.starts_with('+') ? 1 : 0);
  const char* end = value.data() + value.size();
  Integer number{};
  const auto parsed = std::from_chars(begin, end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return not_accepted(value, std::is_signed_v<Integer> ? "an integer" : "an integer from 0 on");
  }
  *field = number;
  return {};
}

Result<bool> parse_flag(const std::string& value) {
  const std::string text = ascii_lower(value);
  if (text.empty() || text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off") return false;
  return not_accepted(value, "true or false");
}

bool is_none(const std::string& value) {
  const std::string text = ascii_lower(value);
  return text.empty() || text == "none" || text == "null";
}

using Value = const std::string&;

// One function a type of field reads what an option was given, one writes it.
Result<void> read_field(bool* field, Value value, const EngineOption& /*option*/) {
  CHORUS_TRY(*field, parse_flag(value));
  return {};
}
Result<void> read_field(int* field, Value value, const EngineOption& /*option*/) {
  return read_integer(field, value);
}
Result<void> read_field(std::uint64_t* field, Value value, const EngineOption& option) {
  if (!option.is_bytes) return read_integer(field, value);
  CHORUS_TRY(*field, parse_bytes(value));
  return {};
}
Result<void> read_field(std::string* field, Value value, const EngineOption& /*option*/) {
  *field = value;
  return {};
}
template <typename Enum>
Result<void> read_field(Enum* field, Value value, const EngineOption& /*option*/) {
  constexpr auto known = enumeration_of(Enum{});
  static_assert(std::size(known.names) == static_cast<std::size_t>(known.last) + 1);
  for (std::size_t i = 0; i < std::size(known.names); ++i) {
    if (value != known.names[i]) continue;
    *field = static_cast<Enum>(i);
    return {};
  }
  return not_accepted(value, fmt::format("{}", fmt::join(known.names, ", ")));
}

std::string text_of(const std::string& field) {
  return field;
}
template <typename T>
std::string text_of(const T& field) {
  if constexpr (std::is_enum_v<T>) {
    return enumeration_of(T{}).names[static_cast<std::size_t>(field)];
  } else {
    return fmt::format("{}", field);
  }
}

Result<void> ignore(Value) {
  return {};
}
Result<void> ignore_flag(Value value) {
  const auto flag = parse_flag(value);
  return flag ? Result<void>() : Result<void>(flag.error());
}
Result<void> ignore_integer(Value value) {
  std::int64_t number = 0;
  return is_none(value) ? Result<void>() : read_integer(&number, value);
}
Result<void> ignore_number(Value value) {
  double number = 0;
  const char* end = value.data() + value.size();
  const auto parsed = std::from_chars(value.data(), end, number);
  if (parsed.ec == std::errc() && parsed.ptr == end && std::isfinite(number) && number >= 0) return {};
  return not_accepted(value, "a number from 0 on");
}
Result<void> only_false(Value value) {
  CHORUS_TRY(const bool flag, parse_flag(value));
  return flag ? Result<void>(not_accepted(value, "false (it would change the model's output)")) : Result<void>();
}
Result<void> only_tokenizer_mode(Value value) {
  const bool known = value == "auto" || value == "slow" || value == "fast" || value == "hf";
  return known ? Result<void>()
               : Result<void>(not_accepted(value, "auto, hf, fast, slow (all are Chorus' own tokenizer)"));
}

// vLLM's, without a field here.
constexpr EngineOption accepted_options[] = {
    {.name = "enforce-eager", .help = no_effect_help, .accept = ignore_flag},
    {.name = "swap-space", .value_hint = "GIB", .help = no_effect_help, .accept = ignore_number},
    {.name = "cpu-offload-gb", .value_hint = "GIB", .help = no_effect_help, .accept = ignore_number},
    {.name = "tokenizer-mode", .value_hint = "NAME", .help = no_effect_help, .accept = only_tokenizer_mode},
    {.name = "revision", .value_hint = "NAME", .help = no_effect_help, .accept = ignore},
    {.name = "code-revision", .value_hint = "NAME", .help = no_effect_help, .accept = ignore},
    {.name = "tokenizer-revision", .value_hint = "NAME", .help = no_effect_help, .accept = ignore},
    {.name = "download-dir", .value_hint = "DIR", .help = no_effect_help, .accept = ignore},
    {.name = "disable-log-stats", .help = no_effect_help, .accept = ignore_flag},
    {.name = "disable-log-requests", .help = no_effect_help, .accept = ignore_flag},
    {.name = "max-seq-len-to-capture", .value_hint = "N", .help = no_effect_help, .accept = ignore_integer},
    {.name = "num-scheduler-steps", .value_hint = "N", .help = no_effect_help, .accept = ignore_integer},
    {.name = "max-parallel-loading-workers", .value_hint = "N", .help = no_effect_help, .accept = ignore_integer},
    {.name = "disable-custom-all-reduce", .help = no_effect_help, .accept = ignore_flag},
    {.name = "enable-chunked-prefill",
     .help = "accepted as vLLM has it; prefill is always chunked",
     .accept = ignore_flag},
    {.name = "async-scheduling", .help = no_effect_help, .accept = ignore_flag},
    {.name = "use-v2-block-manager", .help = no_effect_help, .accept = ignore_flag},
    {.name = "compilation-config", .value_hint = "JSON", .help = no_effect_help, .accept = ignore},
    {.name = "disable-sliding-window", .help = "false", .accept = only_false},
};

std::vector<EngineOption> all_options() {
  std::vector<EngineOption> options;
  EngineConfig config;
  for_each_option(config, [&](const auto&, const EngineOption& option) {
    if (option.name != nullptr) options.push_back(option);
  });
  options.insert(options.end(), std::begin(accepted_options), std::end(accepted_options));
  return options;
}

Result<void> set_option(EngineConfig* config, const EngineOption& wanted, Value given) {
  if (wanted.accept != nullptr) return wanted.accept(given);
  if (wanted.takes_none && is_none(given)) return {};
  const std::string value = wanted.respell == nullptr ? given : wanted.respell(given);
  Result<void> result;
  for_each_option(*config, [&](auto& field, const EngineOption& option) {
    if (option.name != nullptr && option.name == std::string_view(wanted.name))
      result = read_field(&field, value, option);
  });
  return result;
}

// "--Max_Model_Len" -> "max-model-len"
std::string normalised(const std::string& name) {
  std::string result = ascii_lower(name);
  std::replace(result.begin(), result.end(), '_', '-');
  return result.substr(std::min(result.find_first_not_of('-'), result.size()));
}

}  // namespace

std::span<const EngineOption> engine_options() {
  static const std::vector<EngineOption> options = all_options();  // a constant, made once
  return options;
}

namespace {

const EngineOption* find_exact(const std::string& name) {
  for (const auto& options : {engine_options(), options_without_effect()}) {
    for (const EngineOption& option : options) {
      const bool found = name == option.name || (option.alias != nullptr && name == option.alias) ||
                         (option.short_name != nullptr && name == option.short_name + 1);
      if (found) return &option;
    }
  }
  return nullptr;
}

}  // namespace

Result<EngineOptionMatch> find_engine_option(const std::string& name) {
  const std::string wanted = normalised(name);
  if (const EngineOption* option = find_exact(wanted)) return EngineOptionMatch{option, false};
  if (wanted.starts_with("no-")) {
    const EngineOption* option = find_exact(wanted.substr(3));
    if (option != nullptr && option->value_hint == nullptr) return EngineOptionMatch{option, true};
  }
  std::vector<std::string> known;
  for (const EngineOption& option : engine_options()) known.emplace_back(option.name);
  for (const EngineOption& option : options_without_effect()) known.emplace_back(option.name);
  const auto nearest = nearest_name(wanted, known);
  return fail(ErrorCode::invalid_argument, "unknown engine option \"{}\"{}", name.substr(0, 100),
              nearest ? fmt::format("; did you mean {}?", *nearest) : "");
}

Result<void> apply_engine_option(EngineConfig* config, const std::string& name, const std::string& value) {
  CHORUS_TRY(const EngineOptionMatch match, find_engine_option(name));
  std::string effective = value;
  if (match.negated) {
    const auto flag = parse_flag(value);
    if (!flag) return with_context(flag.error(), fmt::format("--no-{} is", match.option->name));
    effective = *flag ? "false" : "true";
  }
  auto applied = set_option(config, *match.option, effective);
  if (!applied) return fail(applied.error().code, "--{} is {}", match.option->name, applied.error().message);
  const bool has_effect = std::string_view(match.option->help) != no_effect_help;
  if (!has_effect) log(LogLevel::info, "engine option {} has no effect here", match.option->name);
  return {};
}

bool is_accepted_word(const EngineOption& option, std::string_view word) {
  std::string_view left = option.accepted == nullptr ? "" : option.accepted;
  while (!left.empty()) {
    const std::size_t end = std::min(left.find(','), left.size());
    if (left.substr(0, end) == word) return true;
    left.remove_prefix(std::min(end + 2, left.size()));  // ", "
  }
  return false;
}

std::vector<std::pair<std::string, std::string>> options_with(const EngineConfig& config, Agreement agreement) {
  std::vector<std::pair<std::string, std::string>> options;
  for_each_option(config, [&](const auto& field, const EngineOption& option) {
    if (option.name != nullptr && option.agreement == agreement) options.emplace_back(option.name, text_of(field));
  });
  return options;
}

std::vector<std::string> options_for_nodes(const EngineConfig& config) {
  std::map<std::string, std::string> defaults;
  const EngineConfig unset;
  for_each_option(unset, [&](const auto& field, const EngineOption& option) {
    if (option.name != nullptr) defaults[option.name] = text_of(field);
  });
  std::vector<std::string> arguments;
  for_each_option(config, [&](const auto& field, const EngineOption& option) {
    if (option.on_nodes == OnNodes::unsaid || text_of(field) == defaults.at(option.name)) return;
    arguments.push_back(fmt::format("--{}={}", option.name, text_of(field)));
  });
  return arguments;
}

}  // namespace chorus
