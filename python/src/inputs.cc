#include "inputs.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "json/json.h"
#include "raise.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

TokenId token_id(nb::handle item) {
  // numpy's integers are numbers too.
  const nb::object number = nb::steal(PyNumber_Index(item.ptr()));
  if (!number.is_valid()) throw nb::python_error();
  int overflow = 0;
  const long long id = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow != 0) return overflow > 0 ? INT32_MAX : INT32_MIN;
  return static_cast<TokenId>(std::clamp<long long>(id, INT32_MIN, INT32_MAX));
}

}  // namespace

GenerationInput input_from(nb::handle prompt, const SamplingOptions& options, bool add_special_tokens, int priority,
                           std::optional<int> dp_rank) {
  GenerationInput input;
  input.options = options.options;
  input.add_special_tokens = add_special_tokens;
  input.priority = priority;
  input.dp_rank = dp_rank;
  input.return_prompt = true;
  if (PyUnicode_Check(prompt.ptr())) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(prompt.ptr(), &size);
    if (text == nullptr) throw nb::python_error();
    input.prompt.assign(text, static_cast<std::size_t>(size));
    return input;
  }
  std::vector<TokenId>& ids = input.prompt_token_ids.emplace();
  for (const nb::handle item : prompt) ids.push_back(token_id(item));
  return input;
}

SamplingOptions sampling_options_from(const std::string& json) {
  const Json given = value_or_raise(parse_json(json));
  SamplingOptions sampling;
  for (const auto& [name, value] : given.items()) {
    if (name == "max_tokens" && value.is_null()) {
      sampling.options.fills_context = true;
    } else {
      raise_unless_ok(apply_sampling_option(&sampling.options, name, value));
    }
  }
  return sampling;
}

}  // namespace chorus::python
