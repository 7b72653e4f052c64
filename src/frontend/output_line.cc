#include "frontend/output_line.h"

#include <nlohmann/json.hpp>

namespace chorus {
namespace {

void write_ids(JsonWriter& writer, const std::vector<TokenId>& ids) {
  writer.begin_array();
  for (const TokenId id : ids) writer.value(id);
  writer.end_array();
}

void write_logprobs(JsonWriter& writer, const std::vector<PositionLogprobs>& positions) {
  writer.begin_array();
  for (const PositionLogprobs& position : positions) {
    writer.begin_object()
        .key("token_id")
        .value(position.chosen.token)
        .key("logprob")
        .value(position.chosen.logprob)
        .key("top")
        .begin_array();
    for (const TokenLogprob& entry : position.top)
      writer.begin_array().value(entry.token).value(entry.logprob).end_array();
    writer.end_array().end_object();
  }
  writer.end_array();
}

void write_choice(JsonWriter& writer, const GeneratedChoice& choice, bool logprobs) {
  writer.begin_object().key("index").value(choice.index).key("text").value(choice.text).key("token_ids");
  write_ids(writer, choice.token_ids);
  writer.key("finish_reason").value(name_of(choice.finish_reason)).key("stop_reason");
  if (choice.stop_string) {
    writer.value(*choice.stop_string);
  } else if (choice.stop_token) {
    writer.value(*choice.stop_token);
  } else {
    writer.null();
  }
  if (logprobs) {
    writer.key("logprobs");
    write_logprobs(writer, choice.logprobs);
  }
  writer.end_object();
}

}  // namespace

void append_output_line(const Json& id, const GenerationOutput& output, const OutputLineFields& fields,
                        std::string* out) {
  JsonWriter writer(out);
  writer.begin_object().key("id").raw(id).key("prompt").value(output.prompt.text).key("prompt_token_ids");
  write_ids(writer, output.prompt.token_ids);
  writer.key("outputs").begin_array();
  for (const GeneratedChoice& choice : output.choices) write_choice(writer, choice, fields.logprobs);
  writer.end_array();
  if (fields.prompt_logprobs && !output.error) {
    writer.key("prompt_logprobs");
    write_logprobs(writer, output.prompt_logprobs);
  }
  writer.key("error");
  if (output.error) {
    writer.value(*output.error);
  } else {
    writer.null();
  }
  if (fields.metrics) {
    writer.key("dp_rank").value(output.dp_rank).key("metrics").begin_object();
    writer.key("ttft_s").value(output.ttft_s).key("latency_s").value(output.latency_s).end_object();
  }
  writer.end_object();
  out->push_back('\n');
}

}  // namespace chorus
