#include "server/access.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace chorus {
namespace {

HttpRequest request(const std::string& host, const std::string& authorization = {}) {
  HttpRequest request;
  request.fields = {{"host", host}};
  if (!authorization.empty()) request.fields.emplace_back("authorization", authorization);
  return request;
}

int status_of(const std::optional<HttpResponse>& refusal) {
  return refusal ? refusal->status : 200;
}

TEST(Access, KeysGuardEveryRouteThatIsNotOpen) {
  AccessRules rules;
  EXPECT_EQ(status_of(refuse_access(rules, request("a"), false)), 200);
  ASSERT_TRUE(rules.keys.add("first-key").ok());
  ASSERT_TRUE(rules.keys.add("second-key").ok());
  const std::pair<const char*, int> cases[] = {
      {"", 401},
      {"Bearer", 401},
      {"Bearer ", 401},
      {"Bearer first-ke", 401},
      {"Bearer first-key ", 401},
      {"Bearer first-keyx", 401},
      {"Basic first-key", 401},
      {"first-key", 401},
      {"Bearer first-key", 200},
      {"bearer second-key", 200},
  };
  for (const auto& [authorization, status] : cases) {
    EXPECT_EQ(status_of(refuse_access(rules, request("a", authorization), false)), status) << authorization;
    EXPECT_EQ(status_of(refuse_access(rules, request("a", authorization), true)), 200) << authorization;
  }
}

TEST(Access, TheHostMustBeTheServers) {
  AccessRules rules;
  rules.hosts = loopback_hosts("127.0.0.1");
  const std::pair<const char*, int> cases[] = {
      {"localhost", 200}, {"LocalHost:8000", 200}, {"127.0.0.1:8000", 200},
      {"[::1]:80", 200},  {"evil.example", 421},   {"evil.example:8000", 421},
      {"", 421},          {"127.0.0.1.evil", 421}, {"::1", 421},
  };
  for (const auto& [host, status] : cases) {
    EXPECT_EQ(status_of(refuse_access(rules, request(host), true)), status) << host;
  }
  EXPECT_EQ(status_of(refuse_access({}, request("anything"), false)), 200);
}

TEST(Access, KeysOfAFile) {
  const std::string path = testing::TempDir() + "/api_keys";
  const auto read = [&](const std::string& text) {
    std::ofstream(path) << text;
    return ApiKeys::read_file(path);
  };
  const auto keys = read("# ours\n\nsk-one\nsk-two\r\n");
  ASSERT_TRUE(keys.ok()) << keys.error().message;
  EXPECT_TRUE(keys->contains("sk-one"));
  EXPECT_TRUE(keys->contains("sk-two"));
  EXPECT_FALSE(keys->contains("# ours"));
  EXPECT_FALSE(keys->contains(""));
  EXPECT_NE(read("\n# none\n").error().message.find("has no API key"), std::string::npos);
  EXPECT_NE(read("ok\ntwo words\n").error().message.find("line 2"), std::string::npos);
  std::filesystem::remove(path);
  EXPECT_EQ(ApiKeys::read_file(path).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace chorus
