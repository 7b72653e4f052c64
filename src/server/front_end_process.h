// A front end as a separate process: argv = {"chorus front-end 0"}, a socket to its parent (parent.h) as
// descriptor 3. Its parent gives it the listening socket and, over another socket, the fleet.
//
//   front end -> parent                parent -> front end
//   HELLO   right after its start      CONFIG    answers HELLO: FrontEndStart; the listening socket comes along
//   READY   it serves                  METRICS   follows: the memory to count in (metrics/metric_store.h) comes along
//   FATAL   its last words             CLIENT    the fleet is there: FrontEndJoin; the socket to its host comes along
//                                      SHUTDOWN  take nothing new, end when what runs has ended
//
// It ends with its parent.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "request/prefix_hash.h"
#include "request/request.h"
#include "server/access.h"
#include "server/front_end.h"
#include "server/front_end_options.h"
#include "server/metrics/metric_layout.h"

namespace chorus {

struct FrontEndStart {
  EngineConfig engine;
  ModelConfig model;  // with the tokenizer's own end-of-sequence token
  std::vector<std::string> model_names;
  AccessRules access;
  std::string version;
  std::int32_t shutdown_timeout_s = 30;
  OutputFormats formats;
  TlsFiles tls;
  std::uint32_t log_level = 1;  // a LogLevel
  FrontEndOptions options;
  std::int32_t index = 0;  // 0 to engine.front_ends() - 1
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.engine, self.model, self.model_names, self.access, self.version, self.shutdown_timeout_s,
                 self.formats, self.tls, self.log_level, self.options, self.index);
  }
};
// What this front end of a server has to do with: with a port for each replica that replica, else all of them.
EngineConfig engine_of_door(EngineConfig engine, int front_end);
// What it is made of, in the process that is told so or in the parent's own.
FrontEndConfig front_end_config(const FrontEndStart& start);
// Of its METRICS.
MetricShape metric_shape(const EngineConfig& engine, const ModelConfig& model);

struct FrontEndJoin {
  ClientId client = 0;
  std::string profile;  // of the replicas' numerics
  PrefixKey prefix_key;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.client, self.profile, self.prefix_key); }
};

std::string encode(const FrontEndStart& message);
std::string encode(const FrontEndJoin& message);
Result<FrontEndStart> decode_front_end_start(std::string_view payload);
Result<FrontEndJoin> decode_front_end_join(std::string_view payload);

inline constexpr int front_end_socket_fd = 3;
bool is_front_end_process(int argc, char** argv);
// main() asks before anything else, as for an engine (worker/process_main.h). Returns the exit status.
int front_end_process_main(int socket_fd);

}  // namespace chorus
