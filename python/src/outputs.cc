#include "outputs.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "raise.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

nb::tuple tuple_of(const PositionLogprobs& position) {
  nb::list top;
  for (const TokenLogprob& entry : position.top) top.append(nb::make_tuple(entry.token, entry.logprob));
  return nb::make_tuple(position.chosen.token, position.chosen.logprob, top);
}

nb::list list_of(const std::vector<PositionLogprobs>& positions) {
  nb::list list;
  for (const PositionLogprobs& position : positions) list.append(tuple_of(position));
  return list;
}

nb::object stop_reason(const std::optional<TokenId>& token, const std::optional<std::string>& text) {
  if (text) return nb::cast(*text);
  return token ? nb::cast(*token) : nb::none();
}

nb::object finish_reason(FinishReason reason) {
  return reason == FinishReason::none ? nb::none() : nb::cast(name_of(reason));
}

nb::object exception_of(const Error& error) {
  try {
    raise(error);
  } catch (nb::python_error& raised) {
    return nb::borrow(raised.value());
  }
}

}  // namespace

nb::tuple tuple_of(const GenerationOutput& output) {
  nb::list choices;
  for (const GeneratedChoice& choice : output.choices) {
    choices.append(nb::make_tuple(choice.index, choice.text, choice.token_ids, finish_reason(choice.finish_reason),
                                  stop_reason(choice.stop_token, choice.stop_string), list_of(choice.logprobs)));
  }
  return nb::make_tuple(output.prompt.text, output.prompt.token_ids, list_of(output.prompt_logprobs), choices,
                        output.dp_rank, output.ttft_s, output.latency_s);
}

nb::tuple tuple_of(const TextDelta& delta) {
  nb::object prompt = nb::none(), logprob = nb::none(), error = nb::none(), cached = nb::none();
  if (delta.prompt) prompt = nb::make_tuple(delta.prompt->text, delta.prompt->token_ids);
  if (delta.logprobs) logprob = tuple_of(*delta.logprobs);
  if (delta.error) error = exception_of({delta.error_code, *delta.error});
  if (delta.prefill) cached = nb::cast(delta.prefill->cached_tokens);
  return nb::make_tuple(delta.tag, delta.choice, delta.text, delta.token, logprob, finish_reason(delta.finish),
                        stop_reason(delta.stop_token, delta.stop_string), prompt, list_of(delta.prompt_logprobs), error,
                        delta.last, delta.dp_rank, cached);
}

}  // namespace chorus::python
