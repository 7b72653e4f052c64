// Sampling options, and the tokenizer of an engine's model.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <nlohmann/json.hpp>

#include "inputs.h"
#include "json/json.h"
#include "module.h"
#include "raise.h"
#include "tokenizer.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

const Tokenizer& tokenizer_of(const TokenizerView& view) {
  if (view.model().tokenizer == nullptr) {
    raise(fail(ErrorCode::invalid_argument, "{}: no tokenizer.json; give token ids and take token_ids",
               view.model().config.directory));
  }
  return *view.model().tokenizer;
}

std::vector<TokenId> encode(const TokenizerView& view, const std::string& text, bool add_special_tokens) {
  const Tokenizer& tokenizer = tokenizer_of(view);
  Result<std::vector<TokenId>> ids = std::vector<TokenId>();
  {
    const nb::gil_scoped_release released;
    ids = tokenizer.encode(text, add_special_tokens);
  }
  return value_or_raise(std::move(ids));
}

std::string decode(const TokenizerView& view, const std::vector<TokenId>& ids, bool skip_special_tokens) {
  return value_or_raise(tokenizer_of(view).decode(ids, skip_special_tokens));
}

std::string render_chat(const TokenizerView& view, const std::string& request) {
  const ChatFormat& chat = view.chat();
  Result<std::string> text = std::string();
  {
    const nb::gil_scoped_release released;
    const auto parsed = parse_json(request);
    text = parsed.ok() ? chat.render(*parsed) : Result<std::string>(parsed.error());
  }
  return value_or_raise(std::move(text));
}

}  // namespace

void bind_text(nb::module_& module) {
  nb::class_<SamplingOptions>(module, "SamplingOptions", "Checked sampling options, ready for an engine.")
      .def_static("from_json", sampling_options_from, nb::arg("json"),
                  "Of a JSON object. Raises ValueError: the option, its value, what is accepted.");
  module.def(
      "sampling_option_names",
      [] {
        std::vector<std::string> names;
        for (const SamplingOption& option : sampling_options()) names.emplace_back(option.name);
        return names;
      },
      "The names that SamplingOptions.from_json takes.");
  nb::class_<TokenizerView>(module, "Tokenizer", "The tokenizer of an engine's model. Any thread may call.")
      .def("encode", encode, nb::arg("text"), nb::arg("add_special_tokens"))
      .def("decode", decode, nb::arg("ids"), nb::arg("skip_special_tokens"))
      .def("render_chat", render_chat, nb::arg("request"), "The prompt of a chat request, a JSON object.")
      .def(
          "token", [](const TokenizerView& view, TokenId id) { return tokenizer_of(view).id_to_token(id); },
          nb::arg("id"))
      .def(
          "id",
          [](const TokenizerView& view, const std::string& token) { return tokenizer_of(view).token_to_id(token); },
          nb::arg("token"))
      .def(
          "is_special", [](const TokenizerView& view, TokenId id) { return tokenizer_of(view).is_special(id); },
          nb::arg("id"))
      .def_prop_ro("is_there", [](const TokenizerView& view) { return view.model().tokenizer != nullptr; })
      .def_prop_ro("vocab_size", [](const TokenizerView& view) { return tokenizer_of(view).vocab_size(); })
      .def_prop_ro("bos_token_ids", [](const TokenizerView& view) { return view.model().config.bos_token_ids; })
      .def_prop_ro("eos_token_id", [](const TokenizerView& view) { return view.model().config.eos_token_id; });
}

}  // namespace chorus::python
