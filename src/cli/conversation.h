// A conversation with a server's model, turn by turn.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "client/http_client.h"
#include "json/json.h"

namespace chorus {

class Conversation {
 public:
  // Asks the server for the name of its first model. Errors: those of call().
  static Result<Conversation> open(Endpoint endpoint, const std::function<bool()>& stop);

  void set_system(const std::string& text);  // ahead of all turns; "": none
  void reset();                              // forgets the turns; the system prompt and the parameters stay
  // A parameter of the API: "temperature", "0.5". The value is JSON, or else a string; "": no longer given.
  Result<void> set(const std::string& name, const std::string& value);
  Result<void> save(const std::string& path) const;  // as JSON; the file is whole or as it was

  // Asks and streams the answer to `on_text`. After an error neither is part of the conversation, but that an answer
  // that was stopped (`cancelled`) stays as far as it came.
  Result<void> say(const std::string& text, const std::function<bool()>& stop,
                   const std::function<void(std::string_view)>& on_text);

 private:
  Json all_messages() const;

  Endpoint endpoint_;
  std::string model_;
  std::string system_;
  Json turns_ = Json::array();
  Json parameters_ = Json::object();
};

}  // namespace chorus
