// An engine for LLM or AsyncLLM: its options, its life, its work.
#include <fmt/format.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "engine.h"
#include "inputs.h"
#include "module.h"
#include "offline_jobs.h"
#include "outputs.h"
#include "raise.h"
#include "streams.h"
#include "tokenizer.h"

namespace nb = nanobind;

namespace chorus::python {
namespace {

using Release = nb::call_guard<nb::gil_scoped_release>;

nb::object value_of_field(const std::string& field) {
  return nb::cast(field);
}
template <typename T>
nb::object value_of_field(const T& field) {
  if constexpr (std::is_enum_v<T>) {
    return nb::cast(enumeration_of(T{}).names[static_cast<std::size_t>(field)]);
  } else {
    return nb::cast(field);
  }
}

nb::dict config_of(const Engine& engine) {
  nb::dict values;
  values["model"] = engine.facts().config.model;
  for_each_option(engine.facts().config, [&](const auto& field, const EngineOption& option) {
    if (option.name == nullptr) return;
    std::string name = option.name;
    std::ranges::replace(name, '-', '_');
    values[name.c_str()] = value_of_field(field);
  });
  return values;
}

nb::dict default_sampling(const Engine& engine) {
  const EngineFacts& facts = engine.facts();
  const SamplingParams params =
      default_generation_options(facts.model.config, facts.config.generation_config != "chorus").params;
  nb::dict values;
  values["temperature"] = params.temperature;
  values["top_p"] = params.top_p;
  values["top_k"] = params.top_k;
  values["min_p"] = params.min_p;
  values["presence_penalty"] = params.presence_penalty;
  values["frequency_penalty"] = params.frequency_penalty;
  values["repetition_penalty"] = params.repetition_penalty;
  values["max_tokens"] = params.max_tokens;
  return values;
}

std::vector<GenerationInput> inputs_from(const nb::list& prompts, const nb::list& options, const nb::list& priorities,
                                         const nb::list& dp_ranks, bool add_special_tokens) {
  std::vector<GenerationInput> inputs;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    std::optional<int> rank;
    if (!dp_ranks[i].is_none()) rank = nb::cast<int>(dp_ranks[i]);
    inputs.push_back(input_from(prompts[i], nb::cast<const SamplingOptions&>(options[i]), add_special_tokens,
                                nb::cast<int>(priorities[i]), rank));
  }
  return inputs;
}

nb::list take_outputs(OfflineJob& job) {
  raise_unless_ok(job.result());
  nb::list outputs;
  for (const GenerationOutput& output : job.outputs()) outputs.append(tuple_of(output));
  return outputs;
}

nb::list take_deltas(const MailboxHandle& handle) {
  nb::list told;
  for (const TextDelta& delta : handle.mailbox->take()) told.append(tuple_of(delta));
  return told;
}

void bind_jobs(nb::module_& module) {
  nb::class_<OfflineJob>(module, "Job", "One call of Engine.generate.")
      .def("wait", &OfflineJob::wait, nb::arg("timeout_ms"), Release(), "True: it has ended.")
      .def("cancel", &OfflineJob::cancel)
      .def("outputs", take_outputs, "Once it has ended: a tuple a prompt. Raises what ended it.")
      .def_prop_ro("finished", &OfflineJob::finished)
      .def_prop_ro("output_tokens", &OfflineJob::output_tokens);
  nb::class_<MailboxHandle>(module, "Mailbox", "The deltas of the requests of one event loop.")
      .def(nb::init<>())
      .def_prop_ro(
          "descriptor", [](const MailboxHandle& handle) { return handle.mailbox->descriptor(); },
          "Readable while there are some.")
      .def("take", take_deltas, "A tuple a delta.");
}

}  // namespace

void bind_engine(nb::module_& module) {
  bind_jobs(module);
  module.def(
      "check_option_name", [](const std::string& name) { value_or_raise(find_engine_option(name)); }, nb::arg("name"),
      "Raises ValueError, with the nearest name, where there is no such engine option.");
  nb::class_<Engine>(module, "Engine", "A fleet of replicas. Any thread of the process that made it may call.")
      .def(
          "__init__",
          [](Engine* place, const std::string& model, const Engine::Options& options,
             const std::map<std::string, std::string>& environment, const std::string& program, bool streams,
             const std::shared_ptr<Meeting>& meeting) {
            new (place) Engine(value_or_raise(Engine::read(model, options, environment, program, meeting)), streams);
          },
          nb::arg("model"), nb::arg("options"), nb::arg("environment"), nb::arg("program"), nb::arg("streams"),
          nb::arg("meeting").none())
      .def("wait_until_started", &Engine::wait_until_started, nb::arg("timeout_ms"),
           "False: not yet. Raises why it could not start.")
      .def("stop", &Engine::stop, nb::arg("abandon"))
      .def("wait_until_ended", &Engine::wait_until_ended, nb::arg("timeout_ms"), "False: not yet.")
      .def_prop_ro("is_of_this_process", &Engine::is_of_this_process)
      .def_prop_ro("config", config_of)
      .def_prop_ro("default_sampling", default_sampling)
      .def_prop_ro("max_model_len",
                   [](const Engine& engine) {
                     const EngineFacts& facts = engine.facts();
                     return facts.config.max_model_len > 0 ? facts.config.max_model_len
                                                           : facts.model.config.max_position_embeddings;
                   })
      .def_prop_ro("world_rank", [](const Engine& engine) { return engine.facts().world_rank; })
      .def_prop_ro("ranks",
                   [](const Engine& engine) {
                     const Coordinates& at = engine.facts().at;
                     return nb::make_tuple(at.dp, at.pp, at.cp, at.tp);
                   })
      .def_prop_ro("is_front", [](const Engine& engine) { return engine.facts().is_front; })
      .def_prop_ro("tokenizer", [](const Engine& engine) { return TokenizerView{engine.thread()}; })
      .def(
          "generate",
          [](const Engine& engine, const nb::list& prompts, const nb::list& options, const nb::list& priorities,
             const nb::list& dp_ranks, bool add_special_tokens) {
            return engine.generate(inputs_from(prompts, options, priorities, dp_ranks, add_special_tokens));
          },
          nb::arg("prompts"), nb::arg("options"), nb::arg("priorities"), nb::arg("dp_ranks"),
          nb::arg("add_special_tokens"))
      .def(
          "add",
          [](const Engine& engine, std::uint64_t number, nb::handle prompt, const SamplingOptions& options,
             int priority, std::optional<int> dp_rank, bool add_special_tokens, const MailboxHandle& handle) {
            engine.add(number, input_from(prompt, options, add_special_tokens, priority, dp_rank), handle.mailbox);
          },
          nb::arg("number"), nb::arg("prompt"), nb::arg("options"), nb::arg("priority"), nb::arg("dp_rank").none(),
          nb::arg("add_special_tokens"), nb::arg("mailbox"))
      .def("abort", &Engine::abort, nb::arg("number"));
}

}  // namespace chorus::python
