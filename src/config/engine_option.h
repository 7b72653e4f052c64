// What an engine option says of the field that it sets: a row of the list of fields of EngineConfig or ParallelConfig
// (config/engine_config.h). The command line, workflows, validation, the cluster's fingerprint and the commands of
// nodes follow from it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/fields.h"
#include "base/result.h"

namespace chorus {

// Which processes must have the same value, or a request could give other tokens, or another error, on some of them.
enum class Agreement : std::uint8_t {
  own,       // none: each has its own
  launched,  // the ranks of a launcher, which all read the same input and give the same seeds
  digested,  // all nodes; the fingerprint holds what follows from it: model config, weights, numerics profile
  agreed,    // all nodes
};

// Whether a node that is started for a fleet is told the value.
enum class OnNodes : std::uint8_t {
  unsaid,   // no: it concerns the front end, or this machine alone
  told,     // as it is
  as_path,  // with an absolute path, where it names a file
};

struct EngineOption {
  const char* name = nullptr;             // with dashes: "max-model-len"; nullptr: no option sets the field
  const char* short_name = nullptr;       // "-tp" style
  const char* alias = nullptr;            // another long spelling, "tp-size"
  const char* value_hint = nullptr;       // "N", "NAME"; nullptr: a flag
  std::int64_t min = 0, max = INT32_MAX;  // of an int
  // The words that a text may be, "auto, cpu"; with OnNodes::as_path: that are no path. nullptr: checked elsewhere.
  const char* accepted = nullptr;
  bool takes_none = false;  // a JSON null or Python's None is accepted and changes nothing
  bool is_bytes = false;    // "4GiB" is a value
  bool of_serve = false;    // the other commands do not show it
  std::string (*respell)(const std::string& value) = nullptr;  // before it is read
  const char* help = "";
  // Of an option without a field: vLLM's, which Chorus accepts and has no use for. What it may be given.
  Result<void> (*accept)(const std::string& value) = nullptr;
  Agreement agreement = Agreement::own;
  OnNodes on_nodes = OnNodes::unsaid;
};

template <typename T>
constexpr Noted<T, EngineOption> option(T& field, Agreement agreement, OnNodes on_nodes, EngineOption row) {
  row.agreement = agreement;
  row.on_nodes = on_nodes;
  return {field, row};
}

// visit(field, option) for the fields of a configuration and of the ones inside it. One without a row does not compile.
template <HasFields Config, typename Visit>
void for_each_option(Config& config, Visit&& visit) {
  for_each_listed(config, [&](auto& listed) {
    auto& field = value_of(listed);
    if constexpr (HasFields<std::remove_reference_t<decltype(field)>>) {
      for_each_option(field, visit);
    } else {
      visit(field, std::as_const(listed.note));
    }
  });
}

// Whether `word` is one of the option's accepted words.
bool is_accepted_word(const EngineOption& option, std::string_view word);

// Of an enumeration that an option sets: the names of its values, in their order.
template <typename E, std::size_t count>
struct NamedEnumeration {
  const char* what;
  E last;
  const char* names[count];
};
template <typename E, std::size_t count>
NamedEnumeration(const char*, E, const char* const (&)[count]) -> NamedEnumeration<E, count>;

}  // namespace chorus
