#include "server/server_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "server/port_holder.h"

namespace chorus {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

tcp::Address address(const std::string& host) {
  ServerOptions options;
  options.host = host;
  options.port = 0;
  return address_of(options).value();
}

TEST(ServerOptions, OtherMachinesNeedAKey) {
  ServerOptions options;
  options.host = "0.0.0.0";
  const auto refused = access_rules(options, address("0.0.0.0"), std::nullopt);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("--allow-no-api-key"));
  EXPECT_FALSE(access_rules(options, address("0.0.0.0"), "").ok()) << "an empty variable is no key";
  EXPECT_TRUE(access_rules(options, address("0.0.0.0"), "sk-key")->keys.contains("sk-key"));
  options.allow_no_api_key = true;
  EXPECT_TRUE(access_rules(options, address("0.0.0.0"), std::nullopt).ok());
  EXPECT_TRUE(access_rules({}, address("127.0.0.1"), std::nullopt).ok());
  EXPECT_THAT(access_rules({}, address("127.0.0.1"), "two words").error().message, HasSubstr("CHORUS_API_KEY"));
}

TEST(ServerOptions, TheHostFieldIsLookedAtOnTheLoopback) {
  ServerOptions options;
  EXPECT_THAT(access_rules(options, address("127.0.0.1"), std::nullopt)->hosts, Contains("localhost"));
  options.allowed_hosts = {"proxy.example"};
  EXPECT_THAT(access_rules(options, address("127.0.0.1"), std::nullopt)->hosts, Contains("proxy.example"));
  options.allowed_hosts = {"*"};
  EXPECT_THAT(access_rules(options, address("127.0.0.1"), std::nullopt)->hosts, IsEmpty());
  EXPECT_THAT(access_rules({}, address("0.0.0.0"), "sk-key")->hosts, IsEmpty());
}

TEST(ServerOptions, APortThatIsTakenNamesItsHolder) {
  auto held = listen_at(address("127.0.0.1"));
  ASSERT_TRUE(held.ok());
  const tcp::Address bound = *tcp::local_address(held->get());
  const auto second = listen_at(bound);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr("pid " + std::to_string(::getpid())));
  held->reset();
  EXPECT_EQ(port_holder(bound.port()), "");
}

TEST(ServerOptions, SeveralFrontEndsShareAPortThatNobodyElseHas) {
  const auto listeners = listen_at(address("127.0.0.1"), 3);
  ASSERT_TRUE(listeners.ok()) << listeners.error().message;
  ASSERT_EQ(listeners->size(), 3U);
  const tcp::Address bound = *tcp::local_address((*listeners)[0].get());
  EXPECT_EQ(tcp::local_address((*listeners)[2].get())->port(), bound.port());
  EXPECT_FALSE(listen_at(bound, 2).ok()) << "another server's front ends are there";
}

TEST(ServerOptions, PortsAndHostsThatAreNone) {
  ServerOptions options;
  options.port = 65536;
  EXPECT_THAT(validate(options).error().message, HasSubstr("--port is 65536"));
  options.port = 1;
  options.shutdown_timeout_s = -1;
  EXPECT_THAT(validate(options).error().message, HasSubstr("--shutdown-timeout is -1"));
  EXPECT_TRUE(validate(ServerOptions{}).ok());
  options.host = "no.such.host.invalid";
  EXPECT_THAT(address_of(options).error().message, HasSubstr("--host"));
}

}  // namespace
}  // namespace chorus
