// One connection of an HttpServer (server.h). Its own part of the work: reads requests, keeps the answers' bytes until
// they are sent, and its deadlines.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <memory>
#include <string>

#include "server/http/exchange.h"
#include "server/http/limits.h"
#include "server/http/request_reader.h"
#include "server/http/transport.h"

namespace chorus {

class HttpConnection;

// What the connections of a server share.
struct ConnectionHost {
  boost::asio::io_context& loop;
  HttpLimits limits;
  HttpApplication application;
  std::string date;            // the present one, for answers
  std::size_t held_bytes = 0;  // of all connections: read, and not yet a request
  bool draining = false;       // each present answer is its connection's last
  TlsContext tls;              // null: connections are in the clear
  std::function<void(HttpConnection*)> on_closed;
  std::array<char, std::size_t{64} << 10> read_buffer;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // `host` outlives this.
  HttpConnection(ConnectionHost& host, HttpTransport transport);

  void start();
  void look_at_deadlines(Nanoseconds now);
  void drain();  // closes if nothing is under way
  void close();  // at once; the exchange's client has gone

 private:
  class OpenExchange;

  // Reading.
  void wait_to_read();
  void read();
  void on_end_of_input();
  bool may_read() const;
  void process();
  void count_held_bytes();
  bool take_head();
  void dispatch(HttpRequest request);
  void refuse(const HttpResponse& response);  // the answer to what is no request, or will not be read: then closes
  // Writing.
  void send(std::string_view bytes);
  void flush();
  void wait_to_write();
  void on_sent();
  std::size_t unsent() const { return output_.size() - sent_; }
  void finish_exchange(bool keep_alive);
  void close_when_sent();
  std::string_view slowness(Nanoseconds now) const;

  ConnectionHost& host_;
  HttpTransport transport_;
  boost::asio::posix::stream_descriptor waits_;  // on the transport's socket, which it does not own
  RequestReader reader_;
  std::shared_ptr<OpenExchange> exchange_;  // the request that is being answered
  std::optional<HttpResponse> refusal_;     // of the request whose end is not yet read
  std::string output_;
  std::size_t sent_ = 0;                                            // of output_
  std::size_t held_bytes_ = 0;                                      // of host_.held_bytes
  bool read_waits_to_write_ = false, write_waits_to_read_ = false;  // a TLS handshake's
  bool processing_ = false, reading_ = false, writing_ = false, flush_is_due_ = false;
  bool closing_ = false;    // nothing more is answered: closed when all is sent
  bool lingering_ = false;  // all is sent: the peer is to close
  bool input_ended_ = false, closed_ = false;
  Nanoseconds idle_since_, head_since_ = 0, body_since_ = 0, progress_at_ = 0, lingers_since_ = 0;
};

}  // namespace chorus
