#include "bench/serve_load.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "net/unique_fd.h"

namespace chorus {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
constexpr std::string_view token = "data: {\"choices\": [{\"text\": \"a\"}]}\n\n";
constexpr std::string_view done = "data: [DONE]\n\n";

// A connection of the server's, and what it does with it.
class Peer {
 public:
  explicit Peer(UniqueFd socket) : socket_(std::move(socket)) {}
  void say(std::string_view text) const {
    CHECK(::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()), "send");
  }
  void end() const { ::shutdown(socket_.get(), SHUT_WR); }
  void wait_until_closed() const {
    char bytes[4096];
    while (::recv(socket_.get(), bytes, sizeof bytes, 0) > 0) continue;
  }

 private:
  UniqueFd socket_;
};

void wait(int milliseconds) {
  ::poll(nullptr, 0, milliseconds);
}

// What becomes of one request to a server that does `answer` with it.
LoadOutcome outcome_of(LoadTarget target, const std::function<void(const Peer&)>& answer) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  CHECK(::bind(listener.get(), generic, size) == 0 && ::listen(listener.get(), 8) == 0 &&
            ::getsockname(listener.get(), generic, &size) == 0,
        "no socket to listen on");
  std::thread server([&] {
    const Peer probe(UniqueFd(::accept(listener.get(), nullptr, nullptr)));  // run_load() looks for the server first
    const Peer peer(UniqueFd(::accept(listener.get(), nullptr, nullptr)));
    answer(peer);
    peer.wait_until_closed();
  });
  target.endpoint.host = "127.0.0.1";
  target.endpoint.port = ntohs(address.sin_port);
  target.path = "/v1/completions";
  LoadRequest request;
  request.body = "{}";
  const auto run = run_load(target, {request}, {}, {});
  server.join();
  return run.value().outcomes.front();
}

TEST(ServeLoad, ARequestMayWaitInTheQueueForLongerThanBetweenTokens) {
  LoadTarget target;
  EXPECT_EQ(target.first_token_limit_s, 21'600);
  target.silence_limit_s = 0.05;
  const LoadOutcome outcome = outcome_of(target, [](const Peer& peer) {
    peer.say(head);
    wait(400);
    peer.say(token);
    peer.say(done);
    peer.end();
  });
  EXPECT_TRUE(outcome.success) << outcome.error;
  EXPECT_GE(outcome.ttft_s, 0.39);
  EXPECT_EQ(outcome.text, "a");
}

TEST(ServeLoad, SilenceEndsARequest) {
  LoadTarget target;
  target.silence_limit_s = 0.25;
  const LoadOutcome after_a_token = outcome_of(target, [](const Peer& peer) {
    peer.say(head);
    peer.say(token);
  });
  EXPECT_FALSE(after_a_token.success);
  EXPECT_THAT(after_a_token.error, HasSubstr("sent nothing for 0.25 s"));
  target.first_token_limit_s = 0.5;
  const LoadOutcome before_one = outcome_of(target, [](const Peer& peer) { peer.say(head); });
  EXPECT_FALSE(before_one.success);
  EXPECT_THAT(before_one.error, HasSubstr("sent no token for 0.5 s"));
}

}  // namespace
}  // namespace chorus
