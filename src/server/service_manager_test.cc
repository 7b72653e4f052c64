#include "server/service_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace chorus {
namespace {

using testing::HasSubstr;

// The manager's end: a datagram socket with this name.
class ServiceManagerTest : public ::testing::TestWithParam<std::string> {
 protected:
  ServiceManagerTest() : name_(GetParam() + std::to_string(::getpid())) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name_.copy(address.sun_path, name_.size());
    if (name_.front() == '@') address.sun_path[0] = '\0';
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size());
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  }
  ~ServiceManagerTest() override {
    if (name_.front() == '/') ::unlink(name_.c_str());
  }
  std::string heard() const {
    char text[256];
    const ssize_t count = ::recv(socket_.get(), text, sizeof text, 0);
    return count < 0 ? "" : std::string(text, static_cast<std::size_t>(count));
  }

  std::string name_;
  UniqueFd socket_;
};

TEST_P(ServiceManagerTest, HearsOfTheBeginningTheEndAndTheLoop) {
  auto manager = ServiceManager::open(name_, "1000000", std::to_string(::getpid()));
  ASSERT_TRUE(manager.ok()) << manager.error().message;
  manager->serves("two replicas");
  EXPECT_EQ(heard(), "READY=1\nSTATUS=two replicas");
  constexpr Nanoseconds millisecond = 1'000'000, begin = 7'000 * millisecond;
  manager->turn(begin);
  EXPECT_EQ(heard(), "WATCHDOG=1");
  manager->turn(begin + 499 * millisecond);
  EXPECT_EQ(heard(), "");
  manager->turn(begin + 500 * millisecond);
  EXPECT_EQ(heard(), "WATCHDOG=1");
  manager->ends();
  EXPECT_THAT(heard(), HasSubstr("STOPPING=1"));
}

TEST_P(ServiceManagerTest, ThatWatchesAnotherProcessHearsNothingOfTheLoop) {
  auto manager = ServiceManager::open(name_, "1000000", "1");
  manager->turn(7'000'000'000);
  EXPECT_EQ(heard(), "");
}

INSTANTIATE_TEST_SUITE_P(Names, ServiceManagerTest,
                         ::testing::Values(testing::TempDir() + "chorus_notify_", "@chorus_notify_"),
                         [](const auto& info) { return std::string(info.index == 0 ? "path" : "abstract"); });

TEST(ServiceManager, IsNobodyWhereNothingIsSaid) {
  ServiceManager::open({}, {}, {})->serves("");
  EXPECT_THAT(ServiceManager::open("relative", {}, {}).error().message, HasSubstr("NOTIFY_SOCKET"));
  EXPECT_EQ(ServiceManager::open("/nowhere/at/all", {}, {}).error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace chorus
