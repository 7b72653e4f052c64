// One request and its answer, between the connection that it came over and whoever answers it. The answer is either one
// response, or a stream: a head, any number of writes, an end. On the server's one thread.
//
// Whoever answers may do so at once or later, and is told when the client has gone. An exchange outlives its connection
// where somebody still holds it: what is written then goes nowhere.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "server/http/request.h"
#include "server/http/response.h"

namespace chorus {

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;  // without its body
  virtual std::string take_body() = 0;             // once

  virtual void respond(HttpResponse response) = 0;
  // `head`: without a body.
  virtual void begin_stream(HttpResponse head) = 0;
  virtual void write(std::string_view data) = 0;  // goes out soon, with what else is written meanwhile
  virtual void end_stream() = 0;
  // Closes the connection in the middle of a stream: the client sees that it is cut off, not that it ended.
  virtual void cut() = 0;

  // True until the answer is whole or the client has gone.
  virtual bool is_open() const = 0;
  // False: HttpLimits::send_buffer_bytes wait for a slow reader. A writer keeps what it has until on_room.
  virtual bool has_room() const = 0;
  // Once, when the client goes before the answer is whole.
  virtual void on_gone(std::function<void()> callback) = 0;
  // Each time that there is room again after there was none.
  virtual void on_room(std::function<void()> callback) = 0;
};

// What a server is made for.
struct HttpApplication {
  // Asked when a request's head is there and before its body is read: an answer refuses it.
  std::function<std::optional<HttpResponse>(const HttpRequest& head)> admit;
  std::function<void(std::shared_ptr<Exchange> exchange)> handle;
  // A request was wholly answered, so long after it was read; may be empty.
  std::function<void(const HttpRequest& request, int status, Nanoseconds duration)> answered = {};
};

}  // namespace chorus
