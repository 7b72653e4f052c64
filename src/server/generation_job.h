// One generation request from its first delta to the end of its answer: puts together what its prompts' choices say,
// and tells it whole or as a stream. What a slow reader has not taken is kept as parts that grow, at most the output's
// own text and logprobs; nobody waits for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "frontend/text_engine.h"
#include "server/http/exchange.h"
#include "server/openai/answer.h"
#include "server/openai/output_parser.h"

namespace chorus {

class GenerationJob {
 public:
  // `request`: its inputs have been handed on, but for their number and their first one's options.
  // `fields`: of the answer's head, whatever it is.
  GenerationJob(std::shared_ptr<Exchange> exchange, GenerationRequest request, AnswerHead head, TokenLabel token_label,
                std::vector<std::pair<std::string, std::string>> fields = {});

  // A delta, without an error, of the request's prompt number `prompt`.
  void take(std::size_t prompt, TextDelta&& delta);
  // Tells what has come, as far as the reader takes it; after each poll, and when there is room again.
  void tell();
  // Ends the answer with an error: instead of it, or as a stream's last event.
  void fail(ErrorCode code, const std::string& message);
  // Ends what has not ended where it is: finish_reason "abort". tell() tells it.
  void end_early();
  bool is_told() const { return told_; }  // the whole answer, or its error
  const std::string& id() const { return writer_.id(); }

  std::vector<TextRequestId> ids;  // of its prompts, in the text engine

 private:
  struct Prompt {
    AnswerPrompt shown;
    bool shows_prompt = false, shows_logprobs = false;  // and they have come
    bool ended = false;
    Usage usage;
  };
  struct Choice {
    AnswerPart part;
    std::optional<OutputParser> parser;  // where its text is taken apart
    bool ended = false;                  // its finish has come
    bool opened = false;                 // its role was told
    bool prompt_shown = false;           // in a stream: with its first part
    std::uint64_t text_offset = 0;
    std::uint64_t reasoning_tokens = 0;
  };

  bool ended() const;
  bool is_complete(const Prompt& prompt) const;
  static void append(TextDelta&& delta, Choice* choice);
  void end_choices_early(std::size_t prompt);
  Usage usage() const;
  AnswerChoice shown(std::size_t index) const;
  void tell_choice(std::size_t index);
  void tell_part(std::size_t index);
  void tell_whole();
  void begin_stream();
  void end_stream();
  void send(const std::string& json);

  std::shared_ptr<Exchange> exchange_;
  GenerationRequest request_;
  AnswerWriter writer_;
  std::vector<std::pair<std::string, std::string>> fields_;
  std::uint32_t choices_per_prompt_;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;  // by index: those of the first prompt come first
  bool streams_ = false;         // the stream's head was sent
  bool told_ = false;
};

}  // namespace chorus
