// A front end: HTTP, the API, the text engine and the fleet in one loop on one thread. Asio waits for the clients'
// sockets and for the fleet's descriptor; each turn polls the fleet without waiting and tells what came.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "fleet/fleet.h"
#include "net/unique_fd.h"
#include "server/access.h"
#include "server/front_end_options.h"
#include "server/http/limits.h"
#include "server/http/tls.h"
#include "server/metrics/metric_store.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

// How a chat's text is taken apart.
struct OutputFormats {
  std::string tool_calls;  // the name of a ToolCallFormat; empty: calls are not looked for
  std::string reasoning;   // the name of a ReasoningStyle; empty: thoughts are not looked for
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.tool_calls, self.reasoning); }
};

struct FrontEndConfig {
  EngineConfig engine;
  ModelConfig model;
  std::vector<std::string> model_names;
  AccessRules access;
  std::string version;  // of the program
  FrontEndOptions options;
  int shutdown_timeout_s = 30;  // for what runs when it is told to end
  OutputFormats formats;
  TlsFiles tls;  // not given: HTTP in the clear
  HttpLimits limits;
  bool has_host = false;   // the fleet's, in this process: counts how the replicas are, and
  bool log_stats = false;  // logs it
};

class FrontEnd {
 public:
  // Loads the chat templates and the certificate. `fleet` and `metrics`, of which `index` is its number, outlive it.
  static Result<std::unique_ptr<FrontEnd>> make(const FrontEndConfig& config,
                                                const std::shared_ptr<const Tokenizer>& tokenizer, Fleet& fleet,
                                                const MetricStore& metrics, int index);
  virtual ~FrontEnd() = default;

  // Serves what connects to this listening socket, once run() runs.
  virtual Result<void> listen_on(UniqueFd listener) = 0;
  // Until `stop` (asked every 100 ms, from this thread) says so: then it takes nothing new, and returns when what ran
  // has been answered, or after the timeout. An error: the fleet has failed; every client has been told.
  virtual Result<void> run(const std::function<bool()>& stop) = 0;
};

}  // namespace chorus
