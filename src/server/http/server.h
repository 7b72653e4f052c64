// HTTP/1.1 over sockets: accepts connections, reads requests one after the other, sends the answers in the same order.
// Keep-alive; requests that come before the earlier one's answer wait their turn. A slow reader has its own buffer, and
// a slow or silent peer its deadlines (limits.h): neither delays anybody else.
//
// The end of what a client sends counts as its going away: what it has asked for and not got is cancelled.
//
// Everything on the thread that runs the io_context.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "net/unique_fd.h"
#include "server/http/exchange.h"
#include "server/http/limits.h"
#include "server/http/tls.h"

namespace boost::asio {
class io_context;
}

namespace chorus {

class HttpServer {
 public:
  // `loop` outlives this; the application's functions are called from it.
  // `tls`: all connections speak it; null: none.
  HttpServer(boost::asio::io_context& loop, HttpApplication application, const HttpLimits& limits = {},
             TlsContext tls = nullptr);
  ~HttpServer();  // closes everything

  // Takes a listening stream socket, TCP or Unix. Several may be given.
  Result<void> listen_on(UniqueFd listener);
  // No new connections; those without a request are closed, the others after their present answer.
  void drain();
  std::size_t connections() const;

 private:
  class Implementation;
  std::shared_ptr<Implementation> implementation_;
};

}  // namespace chorus
