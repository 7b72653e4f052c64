// Which server a client command talks to: a running one, or one that it starts for itself.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/options.h"
#include "client/http_client.h"
#include "client/own_server.h"
#include "config/engine_config.h"

namespace chorus {

struct ServerChoice {
  std::string target = "http://127.0.0.1:8000";  // a URL, or a model
  std::string api_key_file;
  EngineConfig engine;  // checks the engine options; the server reads their words
  const std::vector<std::string>* engine_words = nullptr;
  const std::string* log_level = nullptr;  // of the server that is started

  // `command` in the help: "chat". After the command's own options, which come before an engine's of the same name.
  void declare(Options& options, const std::string& command);
};

// Ends with the server that it started.
class ChosenServer {
 public:
  // `stop` is asked while a model loads. invalid_argument: an engine option for a server that is running, or a key that
  // is none; else OwnServer::start()'s errors.
  static Result<ChosenServer> open(const ServerChoice& choice, const std::function<bool()>& stop);
  const Endpoint& endpoint() const { return endpoint_; }

 private:
  std::optional<OwnServer> own_;
  Endpoint endpoint_;
};

}  // namespace chorus
