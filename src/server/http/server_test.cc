// Through real sockets: a server on the loopback whose loop runs on a thread of its own.
#include "server/http/server.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <future>
#include <thread>

#include "net/tcp.h"

namespace chorus {
namespace {

namespace asio = boost::asio;
constexpr Nanoseconds millisecond = 1'000'000;

class Client {
 public:
  explicit Client(const tcp::Address& server) : socket_(tcp::begin_connect(server).value()) { wait(POLLOUT); }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
      if (sent < 0 && errno != EAGAIN) return false;
      if (sent < 0 && !wait(POLLOUT)) return false;
    }
    return true;
  }
  void end_writing() { ::shutdown(socket_.get(), SHUT_WR); }
  // What comes until `text` is in it, the server closes, or nothing comes for `timeout_ms`.
  std::string receive_until(std::string_view text, int timeout_ms = 5000) {
    while (received_.find(text) == received_.npos || text.empty()) {
      char buffer[4096];
      if (!wait(POLLIN, timeout_ms)) break;
      const ssize_t bytes = ::recv(socket_.get(), buffer, sizeof buffer, 0);
      if (bytes <= 0) {
        closed_ = true;
        break;
      }
      received_.append(buffer, static_cast<std::size_t>(bytes));
    }
    return received_;
  }
  std::string receive_all(int timeout_ms = 5000) { return receive_until("", timeout_ms); }
  std::string answer_to(std::string_view bytes) {
    send(bytes);
    return receive_until("}}", 20);
  }
  bool closed() const { return closed_; }
  int fd() const { return socket_.get(); }

 private:
  bool wait(short what, int timeout_ms = 5000) {
    pollfd item{socket_.get(), what, 0};
    return ::poll(&item, 1, timeout_ms) == 1;
  }
  UniqueFd socket_;
  std::string received_;
  bool closed_ = false;
};

class Server {
 public:
  explicit Server(const HttpLimits& limits = {}) {
    auto listener = tcp::listen(tcp::resolve("127.0.0.1", 0)->front(), 64);
    address_ = *tcp::local_address(listener->get());
    server_.emplace(loop_,
                    HttpApplication{[](const HttpRequest& head) { return admit(head); },
                                    [this](std::shared_ptr<Exchange> exchange) { handle(exchange); }},
                    limits);
    EXPECT_TRUE(server_->listen_on(std::move(*listener)).ok());
    thread_ = std::thread([this] { loop_.run(); });
  }
  ~Server() {
    on_loop([this] {
      server_.reset();
      held_.clear();
    });
    loop_.stop();
    thread_.join();
  }

  const tcp::Address& address() const { return address_; }
  std::string answer_to(std::string_view bytes) {
    Client client(address_);
    client.send(bytes);
    return client.receive_all();
  }
  void on_loop(std::function<void()> work) {
    std::promise<void> done;
    asio::post(loop_, [&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
  std::shared_ptr<Exchange> held(std::size_t index) {
    std::shared_ptr<Exchange> exchange;
    for (int i = 0; i < 500 && exchange == nullptr; ++i) {
      on_loop([&] {
        if (index < held_.size()) exchange = held_[index];
      });
      if (exchange == nullptr) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return exchange;
  }
  bool gone_within(int milliseconds) {
    for (int i = 0; i < milliseconds / 5 && gone_ == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return gone_ > 0;
  }
  std::size_t connections() {
    std::size_t count = 0;
    on_loop([&] { count = server_->connections(); });
    return count;
  }
  HttpServer& server() { return *server_; }

 private:
  static std::optional<HttpResponse> admit(const HttpRequest& head) {
    if (head.path == "/nowhere") return error_response(404, "nothing there");
    return std::nullopt;
  }
  // /echo: the body; /hold: kept, for the test to answer.
  void handle(const std::shared_ptr<Exchange>& exchange) {
    if (exchange->request().path == "/hold") {
      exchange->on_gone([this] { ++gone_; });
      held_.push_back(exchange);
      return;
    }
    HttpResponse response;
    response.content_type = "text/plain";
    response.body = exchange->request().method + " " + exchange->take_body();
    exchange->respond(std::move(response));
  }

  asio::io_context loop_;
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(loop_);
  tcp::Address address_;
  std::optional<HttpServer> server_;
  std::vector<std::shared_ptr<Exchange>> held_;
  std::atomic<int> gone_ = 0;
  std::thread thread_;
};

std::string post(const std::string& path, const std::string& body, const std::string& more = {}) {
  return "POST " + path + " HTTP/1.1\r\nHost: a\r\n" + more + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}
const std::string get_hold = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n";

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  Server server;
  Client client(server.address());
  client.send(post("/echo", "one"));
  const std::string first = client.receive_until("POST one");
  EXPECT_TRUE(first.starts_with("HTTP/1.1 200 OK\r\ndate: ")) << first;
  EXPECT_NE(first.find("\r\ncontent-length: 8\r\n"), first.npos) << first;
  EXPECT_NE(first.find("\r\nconnection: keep-alive\r\n"), first.npos) << first;
  client.send(post("/echo", "two", "Connection: close\r\n"));
  EXPECT_NE(client.receive_until("POST two").find("connection: close"), std::string::npos);
  client.receive_all();
  EXPECT_TRUE(client.closed());
}

TEST(HttpServer, AHeadRequestGetsNoBody) {
  Server server;
  const std::string answer = server.answer_to("HEAD /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_NE(answer.find("content-length: 5\r\n"), answer.npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
}

TEST(HttpServer, RefusesAndCloses) {
  Server server;
  const std::pair<const char*, std::string> cases[] = {
      {"400", "GET / HTTP/1.1\nHost: a\n\n"},
      {"400",
       "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / "},
      {"400", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
      {"400", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"},
      {"413", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"},
      {"431", "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(20000, 'x') + "\r\n\r\n"},
      {"417", post("/echo", "x", "Expect: 200-ok\r\n")},
      {"404", post("/nowhere", "a body that is not read")},
  };
  for (const auto& [status, bytes] : cases) {
    const std::string answer = server.answer_to(bytes + get_hold);
    EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + status)) << bytes << answer;
    EXPECT_NE(answer.find("connection: close\r\n"), answer.npos) << answer;
    EXPECT_NE(answer.find("{\"error\":{\"message\":\""), answer.npos) << answer;
    EXPECT_EQ(answer.find("HTTP/1.1 2"), answer.npos) << "something after it was answered: " << answer;
  }
}

TEST(HttpServer, ARefusedRequestWithoutABodyKeepsTheConnection) {
  Server server;
  Client client(server.address());
  client.send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" + post("/echo", "next"));
  const std::string answers = client.receive_until("POST next");
  EXPECT_TRUE(answers.starts_with("HTTP/1.1 404")) << answers;
}

TEST(HttpServer, AsksForABodyThatWaits) {
  Server server;
  Client client(server.address());
  client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(client.receive_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_TRUE(client.receive_until("POST abc").ends_with("POST abc"));
}

TEST(HttpServer, AnswersInTheOrderOfTheRequests) {
  Server server;
  Client client(server.address());
  client.send(get_hold + post("/echo", "second") + get_hold + post("/echo", "fourth"));
  const auto first = server.held(0);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(client.receive_until("x", 50), "") << "the second was answered before the first";
  server.on_loop([&] { first->respond({200, "text/plain", "first", {}}); });
  const auto third = server.held(1);
  ASSERT_NE(third, nullptr);
  server.on_loop([&] { third->respond({200, "text/plain", "third", {}}); });
  const std::string all = client.receive_until("POST fourth");
  EXPECT_LT(all.find("first"), all.find("POST second"));
  EXPECT_LT(all.find("POST second"), all.find("third"));
  EXPECT_LT(all.find("third"), all.find("POST fourth"));
}

TEST(HttpServer, StreamsInChunks) {
  Server server;
  Client client(server.address());
  client.send(get_hold);
  const auto exchange = server.held(0);
  ASSERT_NE(exchange, nullptr);
  server.on_loop([&] {
    exchange->begin_stream({200, "text/event-stream", {}, {{"x", "y"}}});
    exchange->write("data: a\n\n");
  });
  const std::string begin = client.receive_until("9\r\ndata: a\n\n\r\n");
  EXPECT_NE(begin.find("transfer-encoding: chunked\r\n"), begin.npos) << begin;
  EXPECT_NE(begin.find("\r\nx: y\r\n"), begin.npos) << begin;
  server.on_loop([&] {
    exchange->write("b");
    exchange->end_stream();
    EXPECT_FALSE(exchange->is_open());
  });
  EXPECT_TRUE(client.receive_until("0\r\n\r\n").ends_with("1\r\nb\r\n0\r\n\r\n"));
  client.send(post("/echo", "next"));
  client.receive_until("POST next");
  EXPECT_FALSE(client.closed());
}

TEST(HttpServer, StreamsToTheEndOfTheConnectionInHttp10) {
  Server server;
  Client client(server.address());
  client.send("GET /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto exchange = server.held(0);
  ASSERT_NE(exchange, nullptr);
  server.on_loop([&] {
    exchange->begin_stream({});
    exchange->write("text");
    exchange->end_stream();
  });
  const std::string answer = client.receive_all();
  EXPECT_TRUE(client.closed());
  EXPECT_TRUE(answer.ends_with("\r\n\r\ntext")) << answer;
}

TEST(HttpServer, ACutStreamHasNoEnd) {
  Server server;
  Client client(server.address());
  client.send(get_hold);
  const auto exchange = server.held(0);
  ASSERT_NE(exchange, nullptr);
  server.on_loop([&] {
    exchange->begin_stream({});
    exchange->write("text");
    exchange->cut();
  });
  const std::string answer = client.receive_all();
  EXPECT_TRUE(client.closed());
  EXPECT_TRUE(answer.ends_with("4\r\ntext\r\n")) << answer;
}

TEST(HttpServer, AClientThatGoesCancelsItsRequest) {
  for (const bool half : {false, true}) {
    Server server;
    std::optional<Client> client(server.address());
    client->send(get_hold);
    const auto exchange = server.held(0);
    ASSERT_NE(exchange, nullptr);
    if (half) {
      client->end_writing();
    } else {
      client.reset();
    }
    EXPECT_TRUE(server.gone_within(1000));
    server.on_loop([&] {
      EXPECT_FALSE(exchange->is_open());
      exchange->respond({});  // goes nowhere
    });
  }
}

TEST(HttpServer, AnswersAClientThatHasEndedItsWriting) {
  Server server;
  Client client(server.address());
  client.send(post("/echo", "last"));
  client.end_writing();
  EXPECT_TRUE(client.receive_all().ends_with("POST last"));
}

// Writes until there is no room, or the client has gone.
void fill(Server& server, Exchange& exchange) {
  const std::string piece(64 << 10, 'x');
  for (bool more = true; more;) {
    server.on_loop([&] {
      more = exchange.is_open() && exchange.has_room();
      if (more) exchange.write(piece);
    });
  }
}

TEST(HttpServer, ASlowReaderWaitsAlone) {
  HttpLimits limits;
  limits.write_stall_timeout = 1000 * millisecond;
  limits.sweep_interval = 20 * millisecond;
  Server server(limits);
  Client slow(server.address()), other(server.address());
  slow.send(get_hold);
  const auto exchange = server.held(0);
  ASSERT_NE(exchange, nullptr);
  std::atomic<int> rooms = 0;
  server.on_loop([&] {
    exchange->on_room([&] { ++rooms; });
    exchange->begin_stream({});
  });
  fill(server, *exchange);
  EXPECT_FALSE(exchange->has_room());
  other.send(post("/echo", "quick"));
  EXPECT_TRUE(other.receive_until("POST quick").ends_with("POST quick"));
  // It reads: there is room again. It reads no more: after a while it is cut off.
  std::vector<char> buffer(1 << 20);
  for (int i = 0; i < 5000 && rooms == 0; ++i) {
    if (::recv(slow.fd(), buffer.data(), buffer.size(), 0) > 0) continue;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GT(rooms, 0);
  bool gone = false;
  for (int i = 0; i < 500 && !gone; ++i) {
    fill(server, *exchange);  // again: the kernel takes more for a while
    gone = server.gone_within(10);
  }
  EXPECT_TRUE(gone);
}

TEST(HttpServer, DeadlinesOfSlowPeers) {
  HttpLimits limits;
  limits.head_timeout = 100 * millisecond;
  limits.body_grace = 100 * millisecond;
  limits.idle_timeout = 300 * millisecond;
  limits.sweep_interval = 20 * millisecond;
  Server server(limits);
  Client idle(server.address()), head(server.address()), body(server.address());
  head.send("GET / HT");
  body.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\nabc");
  EXPECT_TRUE(head.receive_all().starts_with("HTTP/1.1 408"));
  EXPECT_TRUE(body.receive_all().starts_with("HTTP/1.1 408"));
  EXPECT_EQ(idle.receive_all(), "");
  EXPECT_TRUE(idle.closed());
  EXPECT_TRUE(head.closed());
  // One that trickles is no better, one that is quick enough is.
  Client trickles(server.address());
  for (int i = 0; i < 60 && trickles.send("GET / HTTP/1.1\r\nX"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (i == 20) break;
  }
  EXPECT_TRUE(trickles.receive_all().starts_with("HTTP/1.1 4"));
}

TEST(HttpServer, TooManyConnectionsAreTold) {
  HttpLimits limits;
  limits.connections_max = 2;
  Server server(limits);
  Client one(server.address()), two(server.address());
  one.send(post("/echo", "1"));
  two.send(post("/echo", "2"));
  one.receive_until("POST 1");
  two.receive_until("POST 2");
  const std::string refused = Client(server.address()).receive_all();
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 503")) << refused;
  EXPECT_NE(refused.find("retry-after: 1\r\n"), refused.npos) << refused;
}

TEST(HttpServer, TooManyUnfinishedBodiesAreTold) {
  HttpLimits limits;
  limits.held_bytes_max = 100'000;
  Server server(limits);
  Client one(server.address()), two(server.address());
  const std::string begin = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
  one.send(begin + std::string(150'000, 'x'));
  std::string refused;
  for (int i = 0; i < 100 && !refused.starts_with("HTTP/1.1 503"); ++i)
    refused = Client(server.address()).answer_to(begin);
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 503")) << refused;
  one.send(std::string(50'000, 'x'));
  EXPECT_TRUE(one.receive_until("POST xxx").starts_with("HTTP/1.1 200"));
  two.send(post("/echo", "two"));
  EXPECT_TRUE(two.receive_until("POST two").starts_with("HTTP/1.1 200"));
}

TEST(HttpServer, DrainsAfterThePresentAnswers) {
  Server server;
  Client idle(server.address()), busy(server.address());
  busy.send(get_hold);
  const auto exchange = server.held(0);
  ASSERT_NE(exchange, nullptr);
  idle.send(post("/echo", "x"));
  idle.receive_until("POST x");
  server.on_loop([&] { server.server().drain(); });
  idle.receive_all();
  EXPECT_TRUE(idle.closed());
  server.on_loop([&] { exchange->respond({200, "text/plain", "whole", {}}); });
  EXPECT_TRUE(busy.receive_all().ends_with("whole"));
  EXPECT_TRUE(busy.closed());
  for (int i = 0; i < 300 && server.connections() > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(server.connections(), 0U);
}

}  // namespace
}  // namespace chorus
