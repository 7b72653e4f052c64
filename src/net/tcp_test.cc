#include "net/tcp.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>

#include <chrono>
#include <string_view>
#include <thread>

#include "base/clock.h"

namespace {

constexpr std::string_view silent_host = "silent.invalid";  // asked for it, the resolver says nothing for a minute

}  // namespace

// In the place of the C library's, for this program: a resolver whose server does not answer.
extern "C" int getaddrinfo(const char* host, const char* port, const addrinfo* hints, addrinfo** list) {
  const bool asks_server = (hints->ai_flags & AI_NUMERICHOST) == 0;
  if (asks_server && host == silent_host) std::this_thread::sleep_for(std::chrono::minutes(1));
  using Resolver = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto resolver = reinterpret_cast<Resolver>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  return resolver(host, port, hints, list);
}

namespace chorus::tcp {
namespace {

using testing::HasSubstr;

TEST(Resolve, TakesANumberWithoutAResolver) {
  const auto ipv4 = resolve("127.0.0.1", 80, monotonic_now());
  ASSERT_TRUE(ipv4.ok()) << ipv4.error().message;
  EXPECT_EQ(ipv4->front().text(), "127.0.0.1 port 80");
  EXPECT_TRUE(resolve("::1", 80, monotonic_now()).ok());
}

TEST(Resolve, FindsANameAndSaysThatThereIsNone) {
  const auto found = resolve("localhost", 80);
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_TRUE(found->front().is_loopback());
  const auto unknown = resolve("nobody.invalid", 80);  // RFC 2606: nobody has such a name
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::unavailable);
  EXPECT_THAT(unknown.error().message, HasSubstr("host \"nobody.invalid\" cannot be resolved"));
}

TEST(Resolve, DoesNotWaitLongerThanItsDeadline) {
  const auto late = resolve(std::string(silent_host), 80, deadline_after(20));
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::deadline_exceeded);
  EXPECT_THAT(late.error().message, HasSubstr("host \"silent.invalid\" cannot be resolved: no answer within"));
}

TEST(Resolve, EndsWhenItIsToldTo) {
  const auto stopped = resolve(std::string(silent_host), 80, deadline_after(50'000), [] { return true; });
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.error().code, ErrorCode::cancelled);
}

}  // namespace
}  // namespace chorus::tcp
