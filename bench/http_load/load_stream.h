// One client of the load generator: a connection that sends the same POST again and again, and reads its answers.
// Nothing waits; whoever has it calls it when its socket is ready.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "net/tcp.h"
#include "net/unique_fd.h"

namespace chorus::http_load {

// What all streams count together.
struct Tally {
  std::uint64_t requests = 0;  // wholly answered with 200
  std::uint64_t tokens = 0;    // by the answers' usage
  std::uint64_t events = 0;    // of streams: one has the tokens of one moment, mostly one
  std::uint64_t refused = 0;   // 429 and 503
  std::uint64_t failed = 0;    // everything else: other statuses, connections cut off, ends without [DONE]
  std::vector<float> first_token_s, between_tokens_s, request_s, refusal_s;
  std::string first_failure;
  bool records = false;  // else only the totals above are kept: the run warms up
};

class LoadStream {
 public:
  // `request`: head and body. `tally` outlives this.
  LoadStream(const tcp::Address& server, std::string_view request, Tally* tally)
      : server_(&server), request_(request), tally_(tally) {}

  // Connects and sends; again after each answer, until stop().
  bool begin(Nanoseconds now);
  void stop() { stopping_ = true; }
  void close() { socket_.reset(); }
  // Refused, with its connection open: it sends again when resume() says so. False: it cannot.
  bool paused() const { return paused_; }
  bool resume(Nanoseconds now);
  bool idle() const { return !socket_.valid() || (stopping_ && !under_way_); }

  int fd() const { return socket_.get(); }
  bool wants_to_write() const { return socket_.valid() && sent_ < request_.size(); }
  // The socket is ready. False: it was closed, and begin() may be called again.
  bool write();
  bool read(char* buffer, std::size_t bytes, Nanoseconds now);

 private:
  void send_again(Nanoseconds now);
  void take(std::string_view bytes, Nanoseconds now);
  void take_head();
  void take_events(Nanoseconds now);
  bool is_whole() const;
  void finish(Nanoseconds now);
  void fail(std::string_view why);

  const tcp::Address* server_;
  std::string_view request_;
  Tally* tally_;
  UniqueFd socket_;
  std::size_t sent_ = 0;
  std::string received_;  // of the present answer, from `looked_at_` on still to be looked at
  std::size_t looked_at_ = 0;
  int status_ = 0;              // 0: its head has not come
  std::size_t body_bytes_ = 0;  // by Content-Length
  std::size_t body_at_ = 0;
  bool chunked_ = false, under_way_ = false, stopping_ = false, paused_ = false;
  std::uint64_t events_ = 0;
  Nanoseconds begun_at_ = 0, last_event_at_ = 0;
};

}  // namespace chorus::http_load
