// Sends requests to a server, each at its time and on its own connection, and records when each part of the answers
// arrived. One thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "client/answer_stream.h"
#include "client/endpoint.h"

namespace chorus {

struct LoadRequest {
  std::string body;                 // JSON; asks for a stream
  std::string id;                   // sent as X-Request-Id; "": none
  double at_s = 0;                  // after the beginning; ascending
  std::uint64_t prompt_tokens = 0;  // where the server does not tell them
};

// What became of one request. Times are vLLM's (benchmarks/lib/endpoint_request_func.py): an event of the stream with a
// choice in it counts as a token.
struct LoadOutcome {
  bool success = false;  // answered with 200, to the end, with a token at least
  std::string error;
  std::string text;
  double start_s = 0;         // sent, by the monotonic clock; the connection's set-up is part of all times
  double queue_s = 0;         // before: `max_concurrency` held it back
  double ttft_s = 0;          // from start to the first token
  double latency_s = 0;       // from start to the last token
  std::vector<double> itl_s;  // between two tokens
  std::uint64_t prompt_tokens = 0, output_tokens = 0;
};

struct LoadTarget {
  Endpoint endpoint;
  std::string path;                  // "/v1/completions"
  std::vector<std::string> headers;  // more of them, "Name: value"
  int max_concurrency = 0;           // requests under way; 0: any number
  // Without a token for the first from its start on, or without a byte behind a token for the second, a request has
  // failed. The first one includes the wait in the server's queue: 6 hours, as in vLLM (AIOHTTP_TIMEOUT).
  double first_token_limit_s = 6 * 3600;
  double silence_limit_s = 600;
};

struct LoadRun {
  std::vector<LoadOutcome> outcomes;  // in the order of the requests
  double duration_s = 0;              // from the beginning to the last answer's end
};

// What ended a request is in its outcome. Errors: no server at the endpoint; `cancelled`, when `stop` says so.
// `on_done` is told after each request how many have ended, and the tokens of all.
Result<LoadRun> run_load(const LoadTarget& target, const std::vector<LoadRequest>& requests,
                         const std::function<bool()>& stop,
                         const std::function<void(std::size_t ended, std::uint64_t tokens)>& on_done);

}  // namespace chorus
