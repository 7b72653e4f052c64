// A conversation with a server's model, turn by turn.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "cli/request_parameters.h"
#include "client/answer_stream.h"
#include "client/http_client.h"
#include "json/json.h"

namespace chorus {

class Conversation {
 public:
  // Asks the server for the name of its first model. Errors: those of call().
  static Result<Conversation> open(Endpoint endpoint, const std::function<bool()>& stop);

  void set_system(const std::string& text);  // ahead of all turns; "": none
  void reset();                              // forgets the turns; the system prompt and the parameters stay
  RequestParameters& parameters() { return parameters_; }
  Result<void> save(const std::string& path) const;  // as JSON; the file is whole or as it was

  // Asks and streams the answer to `on_piece`. After an error neither is part of the conversation, but that an answer
  // that was stopped (`cancelled`) stays as far as it came.
  Result<void> say(const std::string& text, const std::function<bool()>& stop,
                   const std::function<void(const AnswerPiece&)>& on_piece);

 private:
  Json all_messages() const;

  Endpoint endpoint_;
  std::string model_;
  std::string system_;
  Json turns_ = Json::array();
  RequestParameters parameters_;
};

}  // namespace chorus
