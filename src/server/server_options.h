// What `chorus serve` is told beside the engine's options.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "net/tcp.h"
#include "server/access.h"
#include "server/front_end_options.h"
#include "server/http/tls.h"

namespace chorus {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8000;                              // 0: the system chooses
  std::string control_socket;                   // for an operator; empty: none
  std::string uds;                              // a Unix socket's path, in the place of host and port; empty: none
  TlsFiles tls;                                 // not given: HTTP in the clear
  std::string api_key_file;                     // empty: none
  bool allow_no_api_key = false;                // where other machines can reach it
  std::vector<std::string> served_model_names;  // none: the model as it was given
  std::vector<std::string> allowed_hosts;       // names of the Host field beside its own; "*": any
  int shutdown_timeout_s = 30;                  // for what runs when it is told to end
  int queued_requests_max = 0;                  // 0: no limit
  int queued_tokens_max = 0;
  bool open_metrics = false;           // they need no key
  bool disable_log_stats = false;      // no line of each replica every ten seconds
  bool prompt_tokens_details = false;  // cached tokens in `usage`
  bool enable_auto_tool_choice = false;
  std::string tool_call_parser;  // of `tool_call_formats()`; empty: none
  std::string reasoning_parser;  // empty: none
};

// Errors: a port or a time that is none; an unknown parser, or none where there must be one; a certificate without its
// key, or one that cannot be read.
Result<void> validate(const ServerOptions& options);
FrontEndOptions front_end_options(const ServerOptions& options);
// The address of `options.host`. Errors: no such host.
Result<tcp::Address> address_of(const ServerOptions& options);
// Who may ask. `key`: of the environment. Errors: no such file; other machines can reach `address` and there is no key.
Result<AccessRules> access_rules(const ServerOptions& options, const tcp::Address& address,
                                 const std::optional<std::string>& key);
// At a Unix socket, which its file's mode guards: a key is not needed, and counts where there is one.
Result<AccessRules> access_rules(const ServerOptions& options, const std::optional<std::string>& key);
// Errors name the address, and who listens there if that can be seen.
Result<UniqueFd> listen_at(const tcp::Address& address);
// One socket for each of `count` front ends, all at one port; the system spreads connections over them.
Result<std::vector<UniqueFd>> listen_at(const tcp::Address& address, int count);

}  // namespace chorus
