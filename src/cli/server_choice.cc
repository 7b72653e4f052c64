#include "cli/server_choice.h"

#include <cstdio>
#include <fstream>
#include <utility>

#include "cli/read_line.h"

namespace chorus {
namespace {

constexpr std::size_t key_bytes_max = 4096;

Result<std::string> read_key(const std::string& path) {
  std::string key = environment_variable("CHORUS_API_KEY").value_or("");
  if (!path.empty()) {
    std::ifstream file(path);
    if (!file) return fail(ErrorCode::not_found, "--api-key-file {}: cannot be read", path);
    CHORUS_TRY(const bool found, read_line(file, path, 1, key_bytes_max, &key));
    if (!found || key.empty()) return fail(ErrorCode::invalid_argument, "--api-key-file {}: no key in line 1", path);
  }
  for (const char c : key) {
    if (c <= ' ' || c > '~') return fail(ErrorCode::invalid_argument, "the API key holds a character that none may");
  }
  return key;
}

Result<Endpoint> running_server(const ServerChoice& choice) {
  CHORUS_TRY(Endpoint endpoint, parse_url(choice.target));
  if (!choice.engine_words->empty()) {
    return fail(ErrorCode::invalid_argument, "{} is an engine's option, and {} has engines: give it to chorus serve",
                choice.engine_words->front(), choice.target);
  }
  CHORUS_TRY(endpoint.key, read_key(choice.api_key_file));
  return endpoint;
}

Result<OwnServer> own_server(const ServerChoice& choice, const std::function<bool()>& stop) {
  std::vector<std::string> words = *choice.engine_words;
  words.insert(words.end(), {"--", choice.target});
  std::fprintf(stderr, "chorus: loading %s\n", choice.target.c_str());
  std::string level = *choice.log_level;
  if (level.empty()) level = environment_variable("CHORUS_LOG_LEVEL").value_or("");
  return OwnServer::start(words, level.empty() ? "warning" : level, stop);
}

}  // namespace

void ServerChoice::declare(Options& options, const std::string& command) {
  options.positional(
      "SERVER", &target,
      fmt::format("http://HOST:PORT or unix:PATH of a running server (http://127.0.0.1:8000), or a MODEL: "
                  "then {0} starts a server with the engine options, and ends it with the {0}",
                  command)
          .c_str(),
      false);
  options.text("--api-key-file", &api_key_file,
               "the running server's API key, in line 1; it may also be in the environment, as CHORUS_API_KEY");
  options.engine(&engine);
  engine_words = options.engine_words();
  log_level = options.log_level_word();
}

Result<ChosenServer> ChosenServer::open(const ServerChoice& choice, const std::function<bool()>& stop) {
  ChosenServer server;
  if (is_url(choice.target)) {
    CHORUS_TRY(server.endpoint_, running_server(choice));
    return server;
  }
  CHORUS_TRY(OwnServer started, own_server(choice, stop));
  server.own_.emplace(std::move(started));
  server.endpoint_ = server.own_->endpoint();
  return server;
}

}  // namespace chorus
