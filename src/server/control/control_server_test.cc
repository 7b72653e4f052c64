#include "server/control/control_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

namespace chorus {
namespace {

using testing::HasSubstr;

class ControlServerTest : public ::testing::Test {
 protected:
  ControlServerTest() : path_(testing::TempDir() + "chorus_control_" + std::to_string(::getpid())) {
    auto opened = ControlServer::open(path_);
    EXPECT_TRUE(opened.ok()) << opened.error().message;
    server_.emplace(std::move(*opened));
  }
  UniqueFd connect() {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    path_.copy(name.sun_path, path_.size());
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    return socket;
  }
  void turn() {
    server_->turn([this](std::string_view request) {
      asked_.emplace_back(request);
      return "<" + std::string(request) + ">";
    });
  }
  static void say(const UniqueFd& to, const std::string& text) {
    EXPECT_EQ(::send(to.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // What has come; "end": the other side has closed.
  static std::string heard(const UniqueFd& from) {
    char text[1024];
    const ssize_t count = ::recv(from.get(), text, sizeof text, 0);
    return count == 0 ? "end" : count < 0 ? "" : std::string(text, static_cast<std::size_t>(count));
  }

  std::string path_;
  std::optional<ControlServer> server_;
  std::vector<std::string> asked_;
};

TEST_F(ControlServerTest, AnswersEachLineOfEachClientInOrder) {
  const UniqueFd one = connect(), two = connect();
  say(one, "a\nb\nc");
  say(two, "x\n");
  turn();
  EXPECT_EQ(heard(one), "<a>\n<b>\n");
  EXPECT_EQ(heard(two), "<x>\n");
  say(one, "d\n");
  turn();
  EXPECT_EQ(heard(one), "<cd>\n");
}

TEST_F(ControlServerTest, IsThisUsersAloneAndGoesWithItsServer) {
  struct stat file {};
  ASSERT_EQ(::stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600u);
  EXPECT_THAT(ControlServer::open(path_).error().message, HasSubstr("--control-socket"));
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ControlServerTest, EndsWhoeverSendsALineWithoutEnd) {
  const UniqueFd one = connect();
  say(one, std::string(5000, 'a'));
  turn();
  EXPECT_EQ(heard(one), "end");
  EXPECT_TRUE(asked_.empty());
}

TEST_F(ControlServerTest, SixteenAtATimeAndNobodyIsRefused) {
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(connect());
    say(clients.back(), "a\n");
  }
  turn();
  EXPECT_EQ(asked_.size(), 16u);
  clients.erase(clients.begin(), clients.begin() + 16);
  turn();  // hears that they have gone
  turn();
  EXPECT_EQ(asked_.size(), 20u);
}

TEST_F(ControlServerTest, AClientWaitsForItsAnswerAndNoLonger) {
  std::thread client([&] { EXPECT_EQ(ask_control(path_, "hello", 5000).value(), "<hello>"); });
  while (asked_.empty()) turn();
  client.join();
  EXPECT_EQ(ask_control(path_, "hello", 10).error().code, ErrorCode::deadline_exceeded);
  server_.reset();
  EXPECT_EQ(ask_control(path_, "hello", 10).error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace chorus
